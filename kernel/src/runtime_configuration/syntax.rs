//! Which reader a file's syntax takes.

use super::document::Document;
use super::engines::Syntax;
use super::json::JsonDocument;
use super::toml::TomlDocument;

/// Reads a file's text. Fails with what is wrong with it, and where.
pub fn parse(syntax: Syntax, text: &str) -> Result<Box<dyn Document>, String> {
    Ok(match syntax {
        Syntax::Json => Box::new(JsonDocument::parse(text)?),
        Syntax::Toml => Box::new(TomlDocument::parse(text)?),
    })
}
