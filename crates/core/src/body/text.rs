//! Bytes as text, in the charset that they are in.

use std::borrow::Cow;

use encoding_rs::{Encoding, UTF_8, UTF_16BE, UTF_16LE};

/// Reads `body` as text: UTF-8, UTF-16 behind its byte order mark, or else the charset that `content_type` names. A byte
/// order mark is left out (RFC 8259 §8.1 lets a reader ignore it). `None` where it is none of these.
pub(crate) fn decode<'a>(content_type: &str, body: &'a [u8]) -> Option<Cow<'a, str>> {
    let (encoding, rest) = match Encoding::for_bom(body) {
        Some((encoding, length)) => (encoding, &body[length..]),
        None => (UTF_8, body),
    };
    if encoding == UTF_16LE || encoding == UTF_16BE {
        return encoding.decode_without_bom_handling_and_without_replacement(rest);
    }
    match std::str::from_utf8(rest) {
        Ok(text) => Some(Cow::Borrowed(text)),
        Err(_) => charset(content_type)?.decode_without_bom_handling_and_without_replacement(rest),
    }
}

/// The charset that a content type names, unless it is UTF-8.
pub(crate) fn charset(content_type: &str) -> Option<&'static Encoding> {
    let label = content_type.split(';').skip(1).find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        name.trim().eq_ignore_ascii_case("charset").then(|| value.trim().trim_matches('"'))
    })?;
    Encoding::for_label(label.as_bytes()).filter(|encoding| *encoding != UTF_8)
}

/// Whether a content type is of this media type, whatever its parameters.
pub(crate) fn is(content_type: &str, media_type: &str) -> bool {
    content_type.split(';').next().is_some_and(|media| media.trim().eq_ignore_ascii_case(media_type))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_read_in_its_charset_and_never_guessed() {
        let cases: [(&str, &[u8], Option<&str>); 8] = [
            ("", "é".as_bytes(), Some("é")),
            ("", b"\xef\xbb\xbf{}", Some("{}")),
            ("", b"\xff\xfe{\0}\0", Some("{}")),
            ("", b"\xfe\xff\0{\0}", Some("{}")),
            ("text/plain; Charset=\"ISO-8859-1\"", b"caf\xe9", Some("café")),
            ("text/plain; charset=utf-8", b"caf\xe9", None),
            ("text/plain; charset=iso-8859-1", "é".as_bytes(), Some("é")),
            ("", b"caf\xe9", None),
        ];
        for (content_type, body, expected) in cases {
            assert_eq!(decode(content_type, body).as_deref(), expected, "{content_type} {body:?}");
        }
    }
}
