//! Which event types a list is narrowed to.
//!
//! A list shows the newest rows of some types. Looked for in the order of ids, a rare type would be
//! found only after reading all that came since; so each type is looked up by itself, in an index on
//! type and id, and the newest of all are taken.

use posthorn_core::event_type::{EventType, Pattern};
use uuid::Uuid;

use crate::{GenericClient, Result};

/// More types than this are not looked up one by one: so many are hardly rare all together.
const MOST: i64 = 200;

/// Which of a statement's parameters are which.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Parameters {
    pub before: u8,
    pub from: u8,
    pub texts: u8,
    pub limit: u8,
}

/// What a list's patterns mean in a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Types {
    All,
    /// Each of them is looked up by itself. May be empty.
    These(Vec<String>),
    /// Patterns for LIKE, for what is found otherwise.
    Like(Vec<String>),
}

impl Types {
    /// Finds the types in `table`, `events` or `deliveries`, of this tenant or of all, that the patterns mean.
    /// No patterns mean all.
    pub async fn find(
        db: &impl GenericClient,
        table: &'static str,
        tenant: Option<Uuid>,
        patterns: &[Pattern],
    ) -> Result<Self> {
        let Self::Like(like) = Self::like(patterns) else { return Ok(Self::All) };
        let mut names = Vec::new();
        for pattern in patterns {
            match pattern {
                Pattern::All => return Ok(Self::All),
                Pattern::Exact(name) => names.push(name.to_string()),
                Pattern::Prefix(prefix) => names.extend(beginning(db, table, tenant, prefix).await?),
                Pattern::Glob(_) => {
                    let all = beginning(db, table, tenant, pattern.prefix()).await?;
                    if i64::try_from(all.len()).is_ok_and(|count| count > MOST) {
                        return Ok(Self::Like(like));
                    }
                    let is_meant = |name: &String| EventType::parse(name).is_ok_and(|name| pattern.matches(&name));
                    names.extend(all.into_iter().filter(is_meant));
                }
            }
        }
        names.sort();
        names.dedup();
        let few = i64::try_from(names.len()).is_ok_and(|count| count <= MOST);
        Ok(if few { Self::These(names) } else { Self::Like(like) })
    }

    /// The same without looking, for lists that are short for another reason.
    pub fn like(patterns: &[Pattern]) -> Self {
        if patterns.is_empty() || patterns.contains(&Pattern::All) {
            return Self::All;
        }
        let escaped = |text: &str| text.replace('\\', "\\\\").replace('_', "\\_").replace('%', "\\%");
        let like = |pattern: &Pattern| match pattern {
            Pattern::Exact(name) => escaped(name.as_str()),
            Pattern::Prefix(prefix) => format!("{}%", escaped(prefix)),
            Pattern::All => "%".to_owned(),
            Pattern::Glob(pieces) => pieces.iter().map(|piece| escaped(piece)).collect::<Vec<_>>().join("%"),
        };
        Self::Like(patterns.iter().map(like).collect())
    }

    /// The texts that the statement takes as `$n`, whichever way [`Self::newest`] puts it.
    pub fn texts(&self) -> &[String] {
        match self {
            Self::All => &[],
            Self::These(texts) | Self::Like(texts) => texts,
        }
    }

    /// The `FROM` item `alias`: the newest rows, at most `$limit`, of `table` that fulfil `conditions`, have ids
    /// from `$from` up to, not including, `$before`, and are of these types, whose texts are `$texts`.
    pub fn newest(&self, table: &str, alias: &str, conditions: &str, parameters: Parameters) -> String {
        let Parameters { before, from, texts, limit } = parameters;
        let newest = |condition: &str, order: &str| {
            format!(
                "(SELECT * FROM {table} {alias} WHERE {conditions} AND {alias}.id < ${before} AND {alias}.id >= ${from}
                    AND {condition} ORDER BY {order} LIMIT ${limit}) {alias}"
            )
        };
        let by_id = format!("{alias}.id DESC");
        match self {
            Self::All => newest(&format!("${texts}::text[] IS NOT NULL"), &by_id),
            Self::Like(_) => newest(&format!("{alias}.event_type LIKE ANY (${texts}::text[])"), &by_id),
            Self::These(_) => {
                // An equation of the type would let the planner read in the order of ids, since the type is then
                // the same in all rows: cheapest for the average type, and endless for a rare one. A range of
                // (type, id) is the same rows, and only the index on type and id has them in order.
                let key = format!("({alias}.event_type COLLATE \"C\", {alias}.id)");
                let range = format!("{key} < (named.event_type, ${before}) AND {key} >= (named.event_type, ${from})");
                let of_one = newest(&range, &format!("{alias}.event_type COLLATE \"C\" DESC, {alias}.id DESC"));
                format!("unnest(${texts}::text[]) AS named (event_type) CROSS JOIN LATERAL {of_one}")
            }
        }
    }
}

/// The types in `table` that begin with `prefix`, one step in the index for each. At most one more than [`MOST`].
async fn beginning(
    db: &impl GenericClient,
    table: &'static str,
    tenant: Option<Uuid>,
    prefix: &str,
) -> Result<Vec<String>> {
    let scope = tenant.map_or("$1::uuid IS NULL", |_| "tenant_id = $1");
    let next = |from: &str| {
        format!(
            "(SELECT event_type FROM {table} WHERE {scope} AND event_type COLLATE \"C\" {from} AND event_type COLLATE \"C\" < $3
              ORDER BY event_type COLLATE \"C\" LIMIT 1)"
        )
    };
    let sql = format!(
        "WITH RECURSIVE t (event_type) AS (
             SELECT {} UNION ALL SELECT {} FROM t WHERE t.event_type IS NOT NULL
         )
         SELECT event_type FROM t WHERE event_type IS NOT NULL LIMIT $4",
        next(">= $2"),
        next("> t.event_type"),
    );
    let end = end_of(prefix);
    let statement = db.prepare_cached(&sql).await?;
    let rows = db.query(&statement, &[&tenant, &prefix, &end, &(MOST + 1)]).await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// The least text that is greater than all that begin with `prefix`: its last character is the next one. The alphabet
/// of event types ends before `~`, which has a character behind it.
fn end_of(prefix: &str) -> String {
    let mut end = prefix.to_owned();
    let last = end.pop().map_or('~', |last| char::from_u32(u32::from(last) + 1).unwrap_or('~'));
    end.push(last);
    end
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_for_like_mean_what_the_patterns_mean() {
        let like =
            |texts: &[&str]| Types::like(&texts.iter().map(|text| Pattern::parse(text).unwrap()).collect::<Vec<_>>());
        assert_eq!(like(&[]), Types::All);
        assert_eq!(like(&["invoice.paid", "*"]), Types::All);
        assert_eq!(like(&["*.pa_id"]), Types::Like(vec!["%.pa\\_id".into()]));
        assert_eq!(["", "a.", "orders/"].map(end_of), ["~", "a/", "orders0"]);
        assert_eq!(like(&["in_voice.*", "a_b"]), Types::Like(vec!["in\\_voice.%".into(), "a\\_b".into()]));
    }
}
