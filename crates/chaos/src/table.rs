//! What a run ends with: tables that can be pasted into a document.

use std::collections::BTreeMap;

use crate::clock::Millis;
use crate::fault::drill::Episode;
use crate::ledger::repeats::Repeat;
use crate::say;

/// Repeats that are listed one by one.
const LISTED: usize = 20;

/// One line for each kind of fault that occurred.
pub fn faults(episodes: &[Episode]) {
    let mut by_kind: BTreeMap<String, Vec<&Episode>> = BTreeMap::new();
    for episode in episodes {
        by_kind.entry(episode.kind.to_string()).or_default().push(episode);
    }
    say("| Fault | What | Times | Door, p50 | Door, max | Caught up, p50 | Caught up, max |");
    say("|---|---|---:|---:|---:|---:|---:|");
    for (name, episodes) in by_kind {
        let doors = Times::of(episodes.iter().map(|episode| episode.door));
        let caught_up = Times::of(episodes.iter().map(|episode| episode.caught_up));
        let what = episodes.first().map(|episode| episode.kind.sentence()).unwrap_or_default();
        say(format_args!("| `{name}` | {what} | {} | {doors} | {caught_up} |", episodes.len()));
    }
}

/// The run in numbers.
pub fn totals(rows: &[(&str, String)]) {
    say("| | |");
    say("|---|---:|");
    for (what, number) in rows {
        say(format_args!("| {what} | {number} |"));
    }
}

pub fn repeats(repeats: &[Repeat]) {
    if repeats.is_empty() {
        return;
    }
    say("| Repeat of | at subscription | when | because |");
    say("|---|---:|---:|---|");
    for Repeat { event, subscription, when, reason } in repeats.iter().take(LISTED) {
        say(format_args!("| `{event}` | {subscription} | {when} | {reason} |"));
    }
    if repeats.len() > LISTED {
        say(format_args!("| {} more | | | |", repeats.len() - LISTED));
    }
}

/// Times until recovery; `None` is one that was not reached.
struct Times(Vec<Option<Millis>>);

impl Times {
    fn of(times: impl Iterator<Item = Option<Millis>>) -> Self {
        let mut times: Vec<_> = times.collect();
        times.sort_by_key(|time| time.unwrap_or(Millis::MAX));
        Self(times)
    }
}

impl std::fmt::Display for Times {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let shown = |place: usize| match self.0.get(place) {
            Some(Some(millis)) => format!("{:.1} s", f64::from(*millis) / 1000.0),
            _ => "never".to_owned(),
        };
        write!(f, "{} | {}", shown(self.0.len().saturating_sub(1) / 2), shown(self.0.len().saturating_sub(1)))
    }
}
