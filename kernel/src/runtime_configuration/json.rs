//! JSON, as dockerd reads it: without comments.

use jsonc_parser::ParseOptions;
use jsonc_parser::cst::{CstInputValue, CstObject, CstObjectProp, CstRootNode};

use super::document::{Document, Value};

/// JSON and nothing more.
const STRICT: ParseOptions = ParseOptions {
    allow_comments: false,
    allow_loose_object_property_names: false,
    allow_trailing_commas: false,
    allow_missing_commas: false,
    allow_single_quoted_strings: false,
    allow_hexadecimal_numbers: false,
    allow_unary_plus_numbers: false,
    allow_bare_decimal_point_numbers: false,
    allow_non_finite_numbers: false,
    allow_extended_string_escapes: false,
};

pub struct JsonDocument {
    root: CstRootNode,
    object: CstObject,
}

impl JsonDocument {
    /// An empty text is one of an empty object.
    pub fn parse(text: &str) -> Result<JsonDocument, String> {
        let text = match text.trim().is_empty() {
            true => "{}\n",
            false => text,
        };
        // The other parser names what is wrong by line and column, and bounds how deep objects may lie in each other.
        let checked = serde_json::from_str::<serde_json::Value>(text);
        checked.map_err(|error| error.to_string())?;
        let root = CstRootNode::parse(text, &STRICT).map_err(|error| error.to_string())?;
        let object = root
            .object_value()
            .ok_or("it is no object: { is expected")?;
        Ok(JsonDocument { root, object })
    }

    /// The property at the end of a path.
    fn property(&self, path: &[String]) -> Option<CstObjectProp> {
        let (last, leading) = path.split_last()?;
        let mut object = self.object.clone();
        for key in leading {
            object = object.object_value(key)?;
        }
        object.get(last)
    }
}

impl Document for JsonDocument {
    fn has(&self, path: &[String]) -> bool {
        self.property(path).is_some()
    }

    fn get(&self, path: &[String]) -> Option<Value> {
        let value = self.property(path)?.value()?;
        let text = value.as_string_lit()?.decoded_value().ok()?;
        Some(Value::Text(text))
    }

    fn set(&mut self, path: &[String], value: &Value) -> Result<(), String> {
        let Some((last, leading)) = path.split_last() else {
            return Ok(());
        };
        let mut object = self.object.clone();
        for key in leading {
            let is_new = object.get(key).is_none();
            let below = object.object_value_or_create(key);
            object = below.ok_or_else(|| format!("{key} is no object"))?;
            if is_new {
                object.ensure_multiline();
            }
        }
        let value = input(value);
        match object.get(last) {
            Some(property) => property.set_value(value),
            None => {
                object.append(last, value);
            }
        }
        Ok(())
    }

    fn remove(&mut self, path: &[String]) {
        let Some(property) = self.property(path) else {
            return;
        };
        property.remove();
        // The objects that led there, if nothing else is in them.
        let Some((_, leading)) = path.split_last() else {
            return;
        };
        let is_bare = self
            .property(leading)
            .and_then(|property| property.object_value())
            .is_some_and(|object| object.properties().is_empty());
        if is_bare {
            self.remove(leading);
        }
    }

    fn copy(&mut self, _from: &[String], _to: &[String]) -> Result<(), String> {
        // No engine whose file is JSON needs it.
        Ok(())
    }

    fn text(&self) -> String {
        self.root.to_string()
    }
}

fn input(value: &Value) -> CstInputValue {
    match value {
        Value::Text(text) => CstInputValue::String(text.clone()),
        Value::Number(number) => CstInputValue::Number(number.to_string()),
        Value::List(list) => {
            let texts = list.iter().cloned().map(CstInputValue::String);
            CstInputValue::Array(texts.collect())
        }
    }
}
