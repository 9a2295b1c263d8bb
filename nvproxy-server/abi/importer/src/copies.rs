//! The nested buffers that the driver copies from and to the caller: `src/nvidia/src/kernel/rmapi/embedded_param_copy.c`.
//!
//! `embeddedParamCopyIn` is one switch over the command. Under each case stand calls of `RMAPI_PARAM_COPY_INIT` with
//! the pointer, the number of elements and the size of one, and statements that set flags. The preprocessor writes the
//! arguments of the calls out as strings; the statements are then read one after the other. They are few and plain, and
//! what is not of the known form is an error or is listed.
//!
//! NV402C_CTRL_CMD_I2C_TRANSACTION has a function of its own, in which the pointer that is followed depends on a field
//! of the parameters. It is listed as a case without copies and needs a reviewed rule.

use crate::compiler::Compiler;
use crate::error::Error;

const FILE: &str = "src/nvidia/src/kernel/rmapi/embedded_param_copy.c";
const DEFINITIONS: &str = "#define RMAPI_PARAM_COPY_INIT(copy, kernel, user, count, element) \
    RINGFENCE_COPY #copy #user #count #element";

/// The cases of the switch that stand for one piece of code.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Case {
    /// The macros of the commands.
    pub commands: Vec<String>,
    pub copies: Vec<CaseCopy>,
}

/// A nested buffer, in C text in which the parameters are left out: `pChannelList`, not `pParams->pChannelList`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CaseCopy {
    pub pointer: String,
    pub count: String,
    /// A constant expression.
    pub element: String,
    pub copied_in: bool,
    pub copied_out: bool,
}

/// Every case of the switch.
pub fn cases(compiler: &Compiler<'_>) -> Result<Vec<Case>, Error> {
    let text = compiler.preprocess_file(FILE, DEFINITIONS)?;
    parse(&text).map_err(|error| error.within(FILE))
}

fn parse(text: &str) -> Result<Vec<Case>, Error> {
    let function = text
        .split_once("embeddedParamCopyIn(")
        .and_then(|(_, rest)| rest.split_once("embeddedParamCopyOut("))
        .and_then(|(function, _)| function.split_once("switch"))
        .and_then(|(_, rest)| rest.split_once("default:"))
        .map(|(switch, _)| switch)
        .ok_or_else(|| Error::new("there is no switch in embeddedParamCopyIn"))?;
    let mut reader = Reader::default();
    for statement in function.split([';', '{', '}']) {
        reader.statement(statement.trim())?;
    }
    let labels = function.matches("case ").count();
    let found: usize = reader.cases.iter().map(|case| case.commands.len()).sum();
    if labels != found {
        return Err(Error::new(format!(
            "embeddedParamCopyIn has {labels} cases, but {found} were understood"
        )));
    }
    Ok(reader.cases)
}

#[derive(Default)]
struct Reader {
    cases: Vec<Case>,
    /// Whether nothing but labels was seen since the last case began.
    labels_only: bool,
    /// Local variables that point to the parameters.
    aliases: Vec<String>,
    /// Local variables with what was last assigned to them.
    variables: Vec<(String, String)>,
}

impl Reader {
    fn statement(&mut self, mut statement: &str) -> Result<(), Error> {
        while let Some(labelled) = statement.strip_prefix("case ") {
            let Some((label, rest)) = labelled.split_once(':') else {
                return Err(unknown(statement));
            };
            if !self.labels_only {
                self.cases.push(Case::default());
                self.aliases.clear();
                self.variables.clear();
            }
            self.labels_only = true;
            if let Some(case) = self.cases.last_mut() {
                case.commands.push(label.trim().to_owned());
            }
            statement = rest.trim_start();
        }
        if statement.is_empty() {
            return Ok(());
        }
        self.labels_only = false;
        if let Some(arguments) = statement.strip_prefix("RINGFENCE_COPY ") {
            self.copy(arguments).ok_or_else(|| unknown(statement))
        } else if statement.contains("RINGFENCE_COPY") {
            // It depends on a condition without braces.
            Err(unknown(statement))
        } else if statement.contains(".flags") {
            self.flag(statement).ok_or_else(|| unknown(statement))
        } else {
            self.assignment(statement);
            Ok(())
        }
    }

    /// The four arguments of a call: which copy, the pointer, the count, the size of an element.
    fn copy(&mut self, arguments: &str) -> Option<()> {
        let strings: Vec<&str> = arguments.split('"').collect();
        let ["", _, _, pointer, _, count, _, element, ""] = strings[..] else {
            return None;
        };
        let pointer = self.without_parameters(pointer);
        let mut element = self.value(element);
        // A buffer that is not given has no elements anyway.
        let if_given = format!("({pointer}!=NULL)?");
        if let Some(conditional) = element.strip_prefix(&if_given) {
            element = conditional.strip_suffix(":0")?.to_owned();
        }
        let copy = CaseCopy {
            pointer,
            count: self.value(count),
            element,
            copied_in: true,
            copied_out: true,
        };
        self.cases.last_mut()?.copies.push(copy);
        Some(())
    }

    /// `paramCopies[N].flags |= RMAPI_PARAM_COPY_FLAGS_...`
    fn flag(&mut self, statement: &str) -> Option<()> {
        let (index, rest) = statement.strip_prefix("paramCopies[")?.split_once(']')?;
        let (_, flag) = rest.split_once("|=")?;
        let copies = &mut self.cases.last_mut()?.copies;
        let copy = copies.get_mut(index.parse::<usize>().ok()?)?;
        match flag.trim().strip_prefix("RMAPI_PARAM_COPY_FLAGS_")? {
            "SKIP_COPYIN" => copy.copied_in = false,
            "SKIP_COPYOUT" => copy.copied_out = false,
            "ZERO_BUFFER" | "DISABLE_MAX_SIZE_CHECK" | "IS_DIRECTION_IN" => {}
            _ => return None,
        }
        Some(())
    }

    /// `TYPE *name = (TYPE*)pParams`, `name = expression` or `TYPE name = expression`; other statements say nothing.
    fn assignment(&mut self, statement: &str) {
        let Some((target, value)) = statement.split_once('=') else {
            return;
        };
        let name = target
            .trim_end()
            .rsplit(|character: char| !is_identifier(character))
            .next()
            .unwrap_or_default();
        if name.is_empty() {
            // A comparison.
        } else if value.trim_end().ends_with(")pParams") {
            self.aliases.push(name.to_owned());
        } else {
            let value = self.without_parameters(value);
            self.variables.push((name.to_owned(), value));
        }
    }

    /// An expression, or what was last assigned to the variable that it is.
    fn value(&self, expression: &str) -> String {
        let expression = self.without_parameters(expression);
        let assigned = self.variables.iter().rfind(|(name, _)| *name == expression);
        assigned.map_or(expression, |(_, value)| value.clone())
    }

    /// An expression without white space and without what says that a field is one of the parameters.
    fn without_parameters(&self, expression: &str) -> String {
        let mut text: String = expression.split_whitespace().collect();
        while let Some(end) = text.find("*)pParams)->") {
            let Some(start) = text[..end].rfind("((") else {
                break;
            };
            text.replace_range(start..end + "*)pParams)->".len(), "");
        }
        for alias in &self.aliases {
            text = text.replace(&format!("{alias}->"), "");
        }
        text
    }
}

fn is_identifier(character: char) -> bool {
    character.is_ascii_alphanumeric() || character == '_'
}

fn unknown(statement: &str) -> Error {
    Error::new(format!(
        "a statement is not of the known form; nvproxy-abi-importer's reader (copies.rs) has to learn it: {statement}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn switch(cases: &str) -> Result<Vec<Case>, Error> {
        parse(&format!(
            "NV_STATUS embeddedParamCopyIn(void) {{ switch (cmd) {{ {cases} default: {{ return status; }} }} }}
             NV_STATUS embeddedParamCopyOut(void) {{ }}"
        ))
    }

    fn copy(pointer: &str, count: &str, element: &str) -> CaseCopy {
        CaseCopy {
            pointer: pointer.to_owned(),
            count: count.to_owned(),
            element: element.to_owned(),
            copied_in: true,
            copied_out: true,
        }
    }

    #[test]
    fn cases_are_read() {
        let cases = switch(
            r#"
            case A: case B:
            {
                do { check(); } while(0);
                RINGFENCE_COPY "paramCopies[0]" "((T*)pParams)->list.pIn" "((T*)pParams)->count" "sizeof(NvU32)";
                paramCopies[0].flags |= RMAPI_PARAM_COPY_FLAGS_SKIP_COPYOUT;
                RINGFENCE_COPY "paramCopies[1]" "((T *) pParams)->pOut" "1" "0x10";
                paramCopies[1].flags |= RMAPI_PARAM_COPY_FLAGS_SKIP_COPYIN;
                paramCopies[1].flags |= RMAPI_PARAM_COPY_FLAGS_ZERO_BUFFER;
                break;
            }
            case C:
            {
                T *user = (T*)pParams;
                NvU32 size = (user->ids != NULL) ? sizeof(NvU32) : 0;
                NvU32 entries = 0;
                if (user->ids != 0) { entries = user->gpuCount * ((T*)pParams)->gpuCount; }
                RINGFENCE_COPY "paramCopies[0]" "user->ids" "entries" "size";
                break;
            }
            case D: { helper(); break; }
            "#,
        );
        let input = CaseCopy {
            copied_out: false,
            ..copy("list.pIn", "count", "sizeof(NvU32)")
        };
        let output = CaseCopy {
            copied_in: false,
            ..copy("pOut", "1", "0x10")
        };
        let case = |commands: &[&str], copies: Vec<CaseCopy>| Case {
            commands: commands.iter().map(|name| (*name).to_owned()).collect(),
            copies,
        };
        assert_eq!(
            cases.expect("a switch"),
            [
                case(&["A", "B"], vec![input, output]),
                case(
                    &["C"],
                    vec![copy("ids", "gpuCount*gpuCount", "sizeof(NvU32)")]
                ),
                case(&["D"], Vec::new()),
            ]
        );
    }

    #[test]
    fn another_form_is_an_error() {
        for statement in [
            r#"if (x) RINGFENCE_COPY "paramCopies[0]" "p" "c" "1";"#,
            r#"RINGFENCE_COPY "paramCopies[0]" "p" "c";"#,
            "paramCopies[0].flags |= RMAPI_PARAM_COPY_FLAGS_SKIP_COPYIN;",
            r#"RINGFENCE_COPY "paramCopies[0]" "p" "c" "1"; if (x) paramCopies[0].flags |= RMAPI_PARAM_COPY_FLAGS_SKIP_COPYIN;"#,
            r#"RINGFENCE_COPY "paramCopies[0]" "p" "c" "1"; paramCopies[0].flags |= RMAPI_PARAM_COPY_FLAGS_NEW;"#,
        ] {
            assert!(
                switch(&format!("case A: {{ {statement} }}")).is_err(),
                "{statement}"
            );
        }
        assert!(parse("NV_STATUS something(void) { }").is_err());
    }
}
