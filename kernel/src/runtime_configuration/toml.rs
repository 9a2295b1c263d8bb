//! TOML, with the comments that people wrote into it.

use toml_edit::{Array, DocumentMut, InlineTable, Item, Table, TableLike};

use super::document::{Document, Value};

pub struct TomlDocument(DocumentMut);

impl TomlDocument {
    pub fn parse(text: &str) -> Result<TomlDocument, String> {
        let parsed = text.parse::<DocumentMut>();
        let document = parsed.map_err(|error| {
            let before = error.span().and_then(|span| text.get(..span.start));
            let line = before.map_or(1, |before| before.matches('\n').count() + 1);
            format!("line {line}: {}", error.message())
        })?;
        Ok(TomlDocument(document))
    }

    fn item(&self, path: &[String]) -> Option<&Item> {
        let mut item = self.0.as_item();
        for key in path {
            item = item.as_table_like()?.get(key)?;
        }
        Some(item)
    }

    /// The table at the end of a path, made if it is not there.
    fn table(&mut self, path: &[String]) -> Result<&mut dyn TableLike, String> {
        let mut item = self.0.as_item_mut();
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
        if let Ok(table) = self.table(leading) {
            // A header that somebody wrote stays: comments can hang on it.
            table.remove(last);
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
        self.0.to_string()
    }
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
