//! The functions of `deploy/local/lib.sh`, called through bash.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use crate::error::{ChaosError, Result, unexpected};

#[derive(Clone, Debug)]
pub struct Library {
    root: PathBuf,
    directory: PathBuf,
}

impl Library {
    pub fn new(root: &Path, directory: &Path) -> Self {
        Self { root: root.to_owned(), directory: directory.to_owned() }
    }

    /// Calls a function whose first argument is the state directory; returns what it printed.
    pub async fn call(&self, function: &str, arguments: &[&str]) -> Result<String> {
        const SCRIPT: &str = r#"set -euo pipefail; source "$1/deploy/local/lib.sh"; shift; "$@""#;
        let output = tokio::process::Command::new("bash")
            .args(["-c", SCRIPT, "bash"])
            .arg(&self.root)
            .arg(function)
            .arg(&self.directory)
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .await?;
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.success() {
            return Ok(printed);
        }
        let printed = printed + &String::from_utf8_lossy(&output.stderr);
        Err(ChaosError::Script { what: function.to_owned(), code: output.status.code(), printed })
    }

    /// The pid of a server that the library started; `None` when it does not run.
    pub fn pid(&self, server: &str) -> Option<i32> {
        let text = std::fs::read_to_string(self.directory.join(format!("{server}.pid"))).ok()?;
        let pid = text.trim().parse().ok()?;
        // Pids are reused: ours carries our directory in its environment.
        let environment = std::fs::read(format!("/proc/{pid}/environ")).ok()?;
        let mark = format!("POSTHORN_LOCAL_DIR={}", self.directory.display());
        environment.split(|byte| *byte == 0).any(|variable| variable == mark.as_bytes()).then_some(pid)
    }

    /// Like [`Library::pid`], for a server that has to run.
    pub fn running(&self, server: &str) -> Result<i32> {
        self.pid(server).ok_or_else(|| unexpected(format!("{server} does not run")))
    }
}
