//! One replica of a service: a child of ours that may be killed, frozen, stopped and started again.

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use tokio::process::{Child, Command};

use crate::error::{Result, unexpected};
use crate::world::tree;

/// How to start it.
#[derive(Clone, Debug)]
pub struct Recipe {
    pub name: String,
    pub program: &'static str,
    pub directory: PathBuf,
    pub environment: Vec<(String, String)>,
}

/// What it is meant to do just now.
pub enum Process {
    Running(Child),
    /// Down because we wanted it.
    Down,
}

impl Recipe {
    /// Starts the program that is in `programs`.
    pub fn start(&self, programs: &Path) -> Result<Process> {
        let log = self.log()?;
        let child = Command::new(programs.join(self.program))
            .env_clear()
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .env("POSTHORN_LOCAL_DIR", &self.directory)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0)
            .spawn()?;
        // So that whoever clears up after us finds it.
        let pid = child.id().unwrap_or_default();
        std::fs::write(self.pid_path(), pid.to_string())?;
        Ok(Process::Running(child))
    }

    fn log(&self) -> Result<File> {
        let path = self.log_path();
        Ok(OpenOptions::new().create(true).append(true).open(path)?)
    }

    pub fn pid_path(&self) -> PathBuf {
        self.directory.join(format!("{}.pid", self.name))
    }

    pub fn log_path(&self) -> PathBuf {
        self.directory.join(format!("log/{}.log", self.name))
    }
}

impl Process {
    pub fn pid(&self) -> Option<i32> {
        match self {
            Self::Running(child) => child.id().and_then(|pid| i32::try_from(pid).ok()),
            Self::Down => None,
        }
    }

    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.pid().map_or(Ok(()), |pid| tree::send(pid, signal))
    }

    /// SIGKILL; returns when nothing is left of it.
    pub async fn kill(&mut self) -> Result<()> {
        if let Self::Running(child) = self {
            child.kill().await?;
        }
        *self = Self::Down;
        Ok(())
    }

    /// SIGTERM, and how it ended. One that takes longer than `grace` is killed.
    pub async fn stop(&mut self, grace: Duration) -> Result<ExitStatus> {
        self.signal(Signal::TERM)?;
        let Self::Running(child) = self else { return Err(unexpected("it does not run")) };
        let ended = tokio::time::timeout(grace, child.wait()).await;
        if ended.is_err() {
            child.kill().await?;
        }
        *self = Self::Down;
        Ok(ended.map_err(|_| unexpected(format!("it did not stop within {} s", grace.as_secs())))??)
    }

    /// How it ended, if it did so although nobody asked.
    pub fn ended_by_itself(&mut self) -> Option<ExitStatus> {
        match self {
            Self::Running(child) => child.try_wait().ok().flatten(),
            Self::Down => None,
        }
    }

    /// The most memory it has had, in bytes.
    pub fn peak_memory(&self) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid()?)).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
        Some(line.split_whitespace().next()?.parse::<u64>().ok()? * 1024)
    }
}
