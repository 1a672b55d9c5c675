//! Names that were not known, and those that might be meant.

/// How many names are listed; of more, only a near one is told.
const MOST_LISTED: usize = 20;

/// Tells that `name` is no `kind` (a field, a parameter), and which one may be meant.
pub fn unknown(kind: &str, name: &str, known: &[&str]) -> String {
    match near(name, known) {
        Some(near) => format!("is not a known {kind}; did you mean `{near}`?"),
        None if known.is_empty() => format!("is not a known {kind}; there is none here"),
        None if known.len() > MOST_LISTED => format!("is not a known {kind}"),
        None => format!("is not a known {kind}; known: {}", listed(known)),
    }
}

/// Tells what a text is one of, and which may be meant.
pub fn named(text: &str, allowed: &[&str]) -> String {
    let detail = match allowed {
        [one] => format!("must be `{one}`"),
        _ => format!("must be one of {}", listed(allowed)),
    };
    match near(text, allowed).filter(|_| allowed.len() > 1) {
        Some(near) => format!("{detail}; did you mean `{near}`?"),
        None => detail,
    }
}

/// `` `a`, `b`, `c` ``.
pub fn listed(names: &[&str]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

/// The known name that is written most alike, if one is near enough to be meant.
pub fn near<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    let plain = |name: &str| name.to_ascii_lowercase().replace(['-', ' '], "_");
    // What is longer than any name is near to none, and long to compare.
    if name.len() > 64 {
        return None;
    }
    let name = snake(name);
    let distance = |known: &str| strsim::damerau_levenshtein(&name, &plain(known));
    let (distance, near) = known.iter().map(|known| (distance(known), *known)).min_by_key(|(distance, _)| *distance)?;
    let most = if name.chars().count() <= 4 { 1 } else { 2 };
    (distance <= most).then_some(near)
}

/// `eventTypes` and `Event-Types` as `event_types`.
fn snake(name: &str) -> String {
    let mut snake = String::new();
    let mut previous = '_';
    for c in name.chars() {
        if c.is_ascii_uppercase() && previous.is_ascii_lowercase() {
            snake.push('_');
        }
        snake.push(if c == '-' || c == ' ' { '_' } else { c.to_ascii_lowercase() });
        previous = c;
    }
    snake
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_near_name_is_told_and_a_far_one_has_the_list() {
        let known = ["event_types", "url", "name"];
        for given in ["event_type", "eventTypes", "Event-Types", "evnet_types"] {
            assert_eq!(near(given, &known), Some("event_types"), "{given}");
        }
        assert_eq!(near("uri", &known), Some("url"));
        assert_eq!(near("colour", &known), None);
        assert_eq!(near(&"x".repeat(100_000), &known), None);
        assert_eq!(unknown("field", "colour", &known), "is not a known field; known: `event_types`, `url`, `name`");
        assert_eq!(unknown("parameter", "limt", &["limit"]), "is not a known parameter; did you mean `limit`?");
        assert_eq!(unknown("field", "x", &[]), "is not a known field; there is none here");
    }
}
