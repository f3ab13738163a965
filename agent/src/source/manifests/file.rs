//! The documents of one file.

use serde_json::Value;
use serde_saphyr::Spanned;

/// A document and where it is.
#[derive(Debug)]
pub(super) struct Document {
    /// Line of its first field, from 1.
    pub line: u64,
    /// Content.
    pub value: Value,
}

/// Splits a file into its documents.
///
/// # Errors
/// What is wrong with the file, with the line.
pub(super) fn documents(file_name: &str, bytes: &[u8]) -> Result<Vec<Document>, String> {
    let text = std::str::from_utf8(bytes)
        .map_err(|error| format!("the file is not UTF-8 text: {error}"))?;
    if file_name.ends_with(".json") {
        json(text)
    } else {
        yaml(text)
    }
}

fn yaml(text: &str) -> Result<Vec<Document>, String> {
    let options = serde_saphyr::options! {
        // Dumps of whole clusters and long comments are welcome; depth and aliases stay bounded.
        budget: serde_saphyr::budget! {
            max_buffered_comment_events: usize::MAX,
            max_documents: usize::MAX,
            max_events: usize::MAX,
            max_nodes: usize::MAX,
            max_total_comment_bytes: usize::MAX,
            max_total_scalar_bytes: usize::MAX,
        },
        // YAML 1.2: a namespace called n is no boolean.
        strict_booleans: true,
        with_snippet: false,
    };
    let documents: Vec<Spanned<Value>> =
        serde_saphyr::from_multiple_with_options(text, options).map_err(|e| e.to_string())?;
    Ok(documents
        .into_iter()
        .map(|document| Document {
            line: document.referenced.line(),
            value: document.value,
        })
        .collect())
}

fn json(text: &str) -> Result<Vec<Document>, String> {
    let mut stream = serde_json::Deserializer::from_str(text).into_iter::<Value>();
    let mut documents = Vec::new();
    let mut start = 0;
    while let Some(value) = stream.next() {
        let value = value.map_err(|error| error.to_string())?;
        let blank = text[start..].len() - text[start..].trim_start().len();
        let line = 1 + text[..start + blank].matches('\n').count() as u64;
        documents.push(Document { line, value });
        start = stream.byte_offset();
    }
    Ok(documents)
}
