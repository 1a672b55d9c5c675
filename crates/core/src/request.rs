//! A provider's request as it came in, before anybody has believed a byte of it.

use bytes::Bytes;

/// One HTTP request, held as received: signatures are made over exact bytes.
#[derive(Clone, Debug)]
pub struct RawRequest {
    /// Upper-case method name.
    pub method: String,
    /// Path and query exactly as in the request line, percent-encoding untouched.
    pub target: String,
    pub headers: Headers,
    pub body: Bytes,
}

/// Header fields in order of arrival, names in lower case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers(Vec<(String, String)>);

impl Headers {
    /// The first value of `name`, in whichever case it is asked for.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    pub fn get_all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

impl<N: AsRef<str>, V: Into<String>> FromIterator<(N, V)> for Headers {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(fields: I) -> Self {
        Self(fields.into_iter().map(|(name, value)| (name.as_ref().to_ascii_lowercase(), value.into())).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_names_match_in_any_case_and_keep_their_order() {
        let headers: Headers = [("X-One", "a"), ("x-two", "b"), ("X-ONE", "c")].into_iter().collect();
        assert_eq!(headers.get("x-one"), Some("a"));
        assert_eq!(headers.get_all("X-One").collect::<Vec<_>>(), ["a", "c"]);
        assert_eq!(headers.get("x-three"), None);
    }
}
