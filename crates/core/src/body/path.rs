//! Places in a JSON document, as configurations write them.

use serde::Deserialize;
use serde_json::Value;

/// A place in a JSON document: a JSON Pointer (`/event/id`, RFC 6901) or, with the same meaning, a
/// path of member names and indices (`$.event.id`, `$.items[0].id`). Empty is the whole document.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct JsonPath(Vec<String>);

impl JsonPath {
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix('$') {
            return dotted(path).map(Self).ok_or_else(|| format!("`{text}` is no path such as `$.event.id`"));
        }
        if text.is_empty() {
            return Ok(Self(vec![]));
        }
        let steps =
            text.strip_prefix('/').ok_or_else(|| format!("`{text}` begins neither with `/` nor with `$`"))?.split('/');
        Ok(Self(steps.map(|step| step.replace("~1", "/").replace("~0", "~")).collect()))
    }

    pub(crate) fn steps(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }

    pub(crate) fn find<'a>(&self, document: &'a Value) -> Option<&'a Value> {
        self.steps().try_fold(document, |at, step| match at {
            Value::Object(members) => members.get(step),
            Value::Array(items) => items.get(step.parse::<usize>().ok()?),
            _ => None,
        })
    }
}

impl JsonPath {
    /// Puts `value` here, making the objects on the way. False where something else stands in the way.
    pub(crate) fn put(&self, document: &mut Value, value: Value) -> bool {
        let mut at = document;
        for step in self.steps() {
            if at.is_null() {
                *at = Value::Object(serde_json::Map::new());
            }
            let next = match at {
                Value::Object(members) => Some(members.entry(step).or_insert(Value::Null)),
                Value::Array(items) => step.parse::<usize>().ok().and_then(|index| items.get_mut(index)),
                _ => None,
            };
            match next {
                Some(next) => at = next,
                None => return false,
            }
        }
        *at = value;
        true
    }
}

impl TryFrom<String> for JsonPath {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text)
    }
}

/// Steps of `.a.b[0]`.
fn dotted(path: &str) -> Option<Vec<String>> {
    let mut steps = vec![];
    let mut rest = path;
    while !rest.is_empty() {
        let (step, tail) = match rest.strip_prefix('[') {
            Some(inside) => inside.split_once(']').filter(|(index, _)| index.parse::<usize>().is_ok())?,
            None => {
                let name = rest.strip_prefix('.')?;
                name.split_at(name.find(['.', '[']).unwrap_or(name.len()))
            }
        };
        if step.is_empty() {
            return None;
        }
        steps.push(step.to_owned());
        rest = tail;
    }
    Some(steps)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pointer_and_a_path_find_the_same_place() {
        let document = serde_json::json!({ "event-data": { "items": [{ "a/b": 1 }] } });
        let one = Value::from(1);
        for text in ["/event-data/items/0/a~1b", "$.event-data.items[0].a/b"] {
            assert_eq!(JsonPath::parse(text).unwrap().find(&document), Some(&one), "{text}");
        }
        for text in ["", "$"] {
            assert_eq!(JsonPath::parse(text).unwrap().find(&document), Some(&document), "{text}");
        }
        for text in ["/nothing", "/event-data/items/1", "/event-data/items/x", "/event-data/items/0/a~1b/c"] {
            assert_eq!(JsonPath::parse(text).unwrap().find(&document), None, "{text}");
        }
    }

    #[test]
    fn a_value_is_put_where_it_is_found_again() {
        let mut document = serde_json::json!({ "items": [{ "a": 1 }], "b": "text" });
        for text in ["/items/0/a", "/c/d/e", "$.items[0].n"] {
            let path = JsonPath::parse(text).unwrap();
            assert!(path.put(&mut document, Value::from(7)), "{text}");
            assert_eq!(path.find(&document), Some(&Value::from(7)), "{text}");
        }
        assert!(!JsonPath::parse("/b/c").unwrap().put(&mut document, Value::Null), "a text has no members");
        assert!(!JsonPath::parse("/items/1").unwrap().put(&mut document, Value::Null));
    }

    #[test]
    fn what_is_no_path_is_refused() {
        for text in ["a", "$a", "$.", "$..a", "$[x]", "$.a[", "$.a[]"] {
            assert!(JsonPath::parse(text).is_err(), "{text}");
        }
    }
}
