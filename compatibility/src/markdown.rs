//! Text in tables of Markdown, which a bar or a line's end would break, and code, which a grave accent would.

/// A row of a table.
pub fn row(cells: &[String]) -> String {
    let cells: Vec<String> = cells.iter().map(|cell| in_cell(cell)).collect();
    format!("| {} |\n", cells.join(" | "))
}

/// The head of a table.
pub fn head(cells: &[String]) -> String {
    format!("{}|{}\n", row(cells), "---|".repeat(cells.len()))
}

fn in_cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', "<br>")
}

/// Text as it was written.
pub fn code(text: &str) -> String {
    let longest = text.split(|character| character != '`').map(str::len).max();
    match longest.unwrap_or_default() {
        0 => format!("`{text}`"),
        length => {
            let fence = "`".repeat(length + 1);
            format!("{fence} {text} {fence}")
        }
    }
}

/// Lines as they were written, in a block.
pub fn block(text: &str) -> String {
    text.lines().map(|line| format!("    {line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_breaks_a_table_or_code() {
        let cells = ["a|b", "c\nd"].map(str::to_owned);
        assert_eq!(row(&cells), "| a\\|b | c<br>d |\n");
        assert_eq!(head(&cells[..1]), "| a\\|b |\n|---|\n");
        assert_eq!(code("a b"), "`a b`");
        assert_eq!(code("a `b`"), "`` a `b` ``");
        assert_eq!(block("a\nb"), "    a\n    b\n");
    }
}
