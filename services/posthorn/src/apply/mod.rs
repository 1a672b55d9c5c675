//! `posthorn apply FILE`: a deployment's tenants, sources, event types and subscriptions as a file says
//! them.
//!
//! Each kind is compared with what the API shows and brought in line before the next one is looked at,
//! since later kinds name earlier ones. What the file does not name of a thing stays as it is. A run that
//! fails in the middle is simply run again.

pub mod file;
mod run;
mod source;
mod unmet;

use std::path::PathBuf;

use clap::Args;

use crate::api::Api;
use crate::error::CliError;

use file::File;
use run::Run;

#[derive(Debug, Args)]
pub struct Apply {
    #[command(flatten)]
    api: Api,
    /// A YAML or JSON file with any of `event_types`, `tenants`, `sources` and `subscriptions`.
    file: PathBuf,
    /// Show only.
    #[arg(long)]
    plan: bool,
    /// Delete what the file's sections do not name: of subscriptions those of its tenants.
    #[arg(long)]
    prune: bool,
}

impl Apply {
    pub async fn run(self) -> Result<(), CliError> {
        let file = File::read(&self.file)?;
        self.bring_in_line(&file).await
    }

    /// The same, for a file with nothing but a catalogue.
    pub async fn run_on_event_types(self) -> Result<(), CliError> {
        let file = File::read(&self.file)?;
        if file.tenants.is_some() || file.sources.is_some() || file.subscriptions.is_some() {
            let detail = "the file has more than event types: `posthorn apply` takes all of it";
            return Err(CliError::Apply(detail.to_owned()));
        }
        self.bring_in_line(&file).await
    }

    async fn bring_in_line(&self, file: &File) -> Result<(), CliError> {
        let mut run = Run::new(&self.api, self.plan);
        if let Some(entries) = &file.event_types {
            run.event_types(entries).await?;
        }
        if file.tenants.is_some() || file.sources.is_some() || file.subscriptions.is_some() {
            let tenants = run.tenants(file.tenants.as_deref()).await?;
            if let Some(sources) = &file.sources {
                run.sources(sources, &tenants).await?;
            }
            if let Some(subscriptions) = &file.subscriptions {
                let named = file.tenants.iter().flatten().map(|tenant| tenant.external_id.as_str());
                run.subscriptions(subscriptions, named, &tenants).await?;
            }
        }
        if self.prune {
            run.prune().await?;
        }
        run.sum_up();
        Ok(())
    }
}
