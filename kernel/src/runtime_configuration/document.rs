//! What is read and changed of a file, whatever its syntax.

/// Keys that lead from the root of a document to something in it.
pub type Keys = Vec<String>;

/// Further keys behind those.
pub fn below(start: &[String], keys: &[&str]) -> Keys {
    let further = keys.iter().map(|key| (*key).to_owned());
    start.iter().cloned().chain(further).collect()
}

/// What can be at the end of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    Text(String),
    List(Vec<String>),
    Number(u8),
}

/// A file's text, as what it means. What is not changed stays as it was written.
pub trait Document {
    /// Whether something is there.
    fn has(&self, path: &[String]) -> bool;
    /// The value that is there. `None` if nothing is, or something else.
    fn get(&self, path: &[String]) -> Option<Value>;
    /// Puts a value there, and makes what leads to it. Fails if something on the way is no table.
    fn set(&mut self, path: &[String], value: &Value) -> Result<(), String>;
    /// Takes out what is there, and what leads to nothing else.
    fn remove(&mut self, path: &[String]);
    /// Copies what is at one path to another at which nothing is, without its comments.
    fn copy(&mut self, from: &[String], to: &[String]) -> Result<(), String>;
    fn text(&self) -> String;
}
