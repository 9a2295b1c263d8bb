//! TOML, with the comments that people wrote into it.

use toml_edit::{Array, DocumentMut, InlineTable, Item, Table, TableLike};

use super::document::{Document, Value};

/// By which some editors begin a file.
const BYTE_ORDER_MARK: &str = "\u{feff}";

pub struct TomlDocument {
    root: DocumentMut,
    /// What the text has that the parser does not keep: a mark at its beginning, and ends of lines as Windows has them.
    has_mark: bool,
    has_carriage_returns: bool,
}

impl TomlDocument {
    pub fn parse(text: &str) -> Result<TomlDocument, String> {
        let parsed = text.parse::<DocumentMut>();
        let document = parsed.map_err(|error| {
            let before = error.span().and_then(|span| text.get(..span.start));
            let line = before.map_or(1, |before| before.matches('\n').count() + 1);
            format!("line {line}: {}", error.message())
        })?;
        Ok(TomlDocument {
            root: document,
            has_mark: text.starts_with(BYTE_ORDER_MARK),
            has_carriage_returns: text.contains("\r\n"),
        })
    }

    fn item(&self, path: &[String]) -> Option<&Item> {
        let mut item = self.root.as_item();
        for key in path {
            item = item.as_table_like()?.get(key)?;
        }
        Some(item)
    }

    /// The table at the end of a path, made if it is not there.
    fn table(&mut self, path: &[String]) -> Result<&mut dyn TableLike, String> {
        let mut item = self.root.as_item_mut();
        let mut name = "";
        for key in path {
            let is_inline = item.is_inline_table();
            let table = item.as_table_like_mut();
            let table = table.ok_or_else(|| not_a_table(name))?;
            name = key;
            item = table.entry(key).or_insert_with(|| match is_inline {
                true => Item::Value(InlineTable::new().into()),
                false => Item::Table(without_header()),
            });
        }
        item.as_table_like_mut().ok_or_else(|| not_a_table(name))
    }
}

impl Document for TomlDocument {
    fn has(&self, path: &[String]) -> bool {
        self.item(path).is_some_and(|item| !item.is_none())
    }

    fn get(&self, path: &[String]) -> Option<Value> {
        let value = self.item(path)?.as_value()?;
        if let Some(number) = value.as_integer() {
            return u8::try_from(number).ok().map(Value::Number);
        }
        if let Some(array) = value.as_array() {
            let texts = array.iter().map(|text| text.as_str().map(str::to_owned));
            return texts.collect::<Option<_>>().map(Value::List);
        }
        value.as_str().map(|text| Value::Text(text.to_owned()))
    }

    fn set(&mut self, path: &[String], value: &Value) -> Result<(), String> {
        if self.get(path).as_ref() == Some(value) {
            return Ok(());
        }
        let Some((last, leading)) = path.split_last() else {
            return Ok(());
        };
        let mut value: toml_edit::Value = match value {
            Value::Text(text) => text.into(),
            Value::Number(number) => i64::from(*number).into(),
            Value::List(list) => Array::from_iter(list).into(),
        };
        let table = self.table(leading)?;
        // A comment behind the value stays.
        match table.get_mut(last).and_then(Item::as_value_mut) {
            Some(present) => {
                *value.decor_mut() = present.decor().clone();
                *present = value;
            }
            None => {
                table.insert(last, Item::Value(value));
            }
        }
        Ok(())
    }

    fn remove(&mut self, path: &[String]) {
        let Some((last, leading)) = path.split_last() else {
            return;
        };
        if !self.has(path) {
            return;
        }
        let Ok(table) = self.table(leading) else {
            return;
        };
        table.remove(last);
        let is_bare =
            table.is_empty() && self.item(leading).is_some_and(|item| !is_commented(item));
        if is_bare {
            self.remove(leading);
        }
    }

    fn copy(&mut self, from: &[String], to: &[String]) -> Result<(), String> {
        let found = self.item(from).and_then(Item::as_table_like);
        let Some(copied) = found.map(plain) else {
            return Ok(());
        };
        let Some((last, leading)) = to.split_last() else {
            return Ok(());
        };
        let is_inline = self.item(leading).is_some_and(Item::is_inline_table);
        let copied = match is_inline {
            true => Item::Value(copied.into_inline_table().into()),
            false => Item::Table(copied),
        };
        self.table(leading)?.insert(last, copied);
        Ok(())
    }

    fn text(&self) -> String {
        let mut text = self.root.to_string();
        if self.has_carriage_returns {
            text = text.replace("\r\n", "\n").replace('\n', "\r\n");
        }
        if self.has_mark && !text.starts_with(BYTE_ORDER_MARK) {
            text.insert_str(0, BYTE_ORDER_MARK);
        }
        text
    }
}

/// Whether a comment hangs on a table's header.
fn is_commented(item: &Item) -> bool {
    let Some(table) = item.as_table() else {
        return false;
    };
    let decor = table.decor();
    let parts = [decor.prefix(), decor.suffix()].into_iter().flatten();
    let mut texts = parts.filter_map(|part| part.as_str());
    texts.any(|text| text.contains('#'))
}

fn not_a_table(key: &str) -> String {
    format!("{key} is no table")
}

/// A table that is written by what is in it.
fn without_header() -> Table {
    let mut table = Table::new();
    table.set_implicit(true);
    table
}

/// A copy of a table as one writes a new one.
fn plain(table: &dyn TableLike) -> Table {
    let mut copy = without_header();
    for (key, item) in table.iter() {
        if let Some(below) = item.as_table_like() {
            copy.insert(key, Item::Table(plain(below)));
        } else if let Some(value) = item.as_value() {
            let mut value = value.clone();
            value.decor_mut().clear();
            copy.insert(key, Item::Value(value));
        }
    }
    copy
}
