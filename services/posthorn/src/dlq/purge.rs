use clap::Args;

use crate::api::Api;
use crate::error::CliError;
use crate::say;

#[derive(Debug, Args)]
pub struct Purge {
    #[command(flatten)]
    api: Api,
    /// How long ago they died at least: `7d`, `12h`, `90m` or `30s`.
    #[arg(long, value_parser = seconds)]
    older_than: u64,
    /// Only this tenant's.
    #[arg(long)]
    tenant: Option<String>,
    /// Only with this reason.
    #[arg(long)]
    reason: Option<String>,
}

impl Purge {
    pub async fn run(self) -> Result<(), CliError> {
        let age = self.older_than.to_string();
        let mut query = vec![("older_than_seconds", age.as_str())];
        query.extend(self.tenant.as_deref().map(|tenant| ("tenant_id", tenant)));
        query.extend(self.reason.as_deref().map(|reason| ("reason", reason)));
        self.api.delete_all("/v1/dead-letters", &query).await?;
        say("purged");
        Ok(())
    }
}

fn seconds(text: &str) -> Result<u64, String> {
    let wrong = || "a whole number of days, hours, minutes or seconds, such as 7d".to_owned();
    let unit = match text.chars().last() {
        Some('d') => 86_400,
        Some('h') => 3600,
        Some('m') => 60,
        Some('s') => 1,
        _ => return Err(wrong()),
    };
    let number: u64 = text[..text.len() - 1].parse().map_err(|_| wrong())?;
    number.checked_mul(unit).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::seconds;

    #[test]
    fn an_age_has_a_unit() {
        assert_eq!(seconds("7d"), Ok(604_800));
        assert_eq!(seconds("90m"), Ok(5400));
        for wrong in ["", "7", "d", "-1d", "7w", "99999999999999999999d", "7é"] {
            assert!(seconds(wrong).is_err(), "{wrong}");
        }
    }
}
