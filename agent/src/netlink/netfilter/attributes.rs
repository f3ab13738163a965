//! Attributes of netfilter's messages: numbers are in network byte order, texts end with a zero.

use rtnetlink::packet_core::{DefaultNla, Emitable, NLA_F_NESTED, NlasIterator};

/// The attributes of a message that is being made.
#[derive(Clone, Debug, Default)]
pub(super) struct Attributes(Vec<u8>);

impl Attributes {
    /// None yet.
    pub(super) fn new() -> Self {
        Self::default()
    }

    /// Adds one of any content.
    #[must_use]
    pub(super) fn bytes(mut self, kind: u16, value: &[u8]) -> Self {
        let attribute = DefaultNla::new(kind, value.to_vec());
        let from = self.0.len();
        self.0.resize(from + attribute.buffer_len(), 0);
        attribute.emit(&mut self.0[from..]);
        self
    }

    /// Adds a text.
    #[must_use]
    pub(super) fn text(self, kind: u16, value: &str) -> Self {
        self.bytes(kind, &[value.as_bytes(), &[0]].concat())
    }

    /// Adds a number.
    #[must_use]
    pub(super) fn number(self, kind: u16, value: u32) -> Self {
        self.bytes(kind, &value.to_be_bytes())
    }

    /// Adds attributes under one.
    #[must_use]
    pub(super) fn nested(self, kind: u16, inner: &Self) -> Self {
        self.bytes(kind | NLA_F_NESTED, &inner.0)
    }

    /// As they are sent.
    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// The attributes that a message has: kind and content. What comes after one that is cut off is left out.
pub(super) fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    NlasIterator::new(bytes).map_while(|attribute| {
        let attribute = attribute.ok()?;
        let (kind, length) = (attribute.kind(), usize::from(attribute.length()));
        Some((kind, attribute.into_inner().get(4..length)?))
    })
}

/// The content of the first attribute of a kind.
pub(super) fn find(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes).find_map(|(found, value)| (found == kind).then_some(value))
}

/// The text of an attribute.
pub(super) fn text(bytes: &[u8], kind: u16) -> Option<String> {
    let value = find(bytes, kind)?;
    let end = value.iter().position(|byte| *byte == 0);
    let value = &value[..end.unwrap_or(value.len())];
    Some(String::from_utf8_lossy(value).into_owned())
}

/// The number of an attribute.
pub(super) fn number(bytes: &[u8], kind: u16) -> Option<u32> {
    Some(u32::from_be_bytes(*find(bytes, kind)?.first_chunk()?))
}

/// The long number of an attribute.
pub(super) fn long(bytes: &[u8], kind: u16) -> Option<u64> {
    Some(u64::from_be_bytes(*find(bytes, kind)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_read_as_they_were_made() {
        let inner = Attributes::new().number(3, 7);
        let made = Attributes::new()
            .text(1, "kube-proxy")
            .nested(2, &inner)
            .bytes(4, &9_u64.to_be_bytes());
        let bytes = made.as_bytes();
        assert_eq!(bytes.len() % 4, 0);
        assert_eq!(text(bytes, 1).as_deref(), Some("kube-proxy"));
        assert_eq!(number(find(bytes, 2).expect("nested"), 3), Some(7));
        assert_eq!(long(bytes, 4), Some(9));
        assert_eq!(text(bytes, 5), None);
        assert_eq!(number(bytes, 1), Some(u32::from_be_bytes(*b"kube")));
        for cut in 0..bytes.len() {
            assert!(attributes(&bytes[..cut]).count() < 3, "{cut}");
        }
    }
}
