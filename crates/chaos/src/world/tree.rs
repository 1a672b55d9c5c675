//! A process and all that descend from it.

use rustix::process::{Pid, Signal, kill_process};

use crate::error::{Result, unexpected};

/// Sends a signal to a process and all below it, those above first: so nobody is left to start another.
pub fn signal_all(root: i32, signal: Signal) -> Result<()> {
    for pid in tree(root) {
        // One that has ended meanwhile is as good as signalled.
        let _ = send(pid, signal);
    }
    Ok(())
}

pub fn send(pid: i32, signal: Signal) -> Result<()> {
    let pid = Pid::from_raw(pid).ok_or_else(|| unexpected(format!("{pid} is no process")))?;
    kill_process(pid, signal).map_err(|error| unexpected(format!("cannot signal: {error}")))
}

/// The root and its descendants, parents before children.
fn tree(root: i32) -> Vec<i32> {
    let parents: Vec<(i32, i32)> = processes();
    let mut found = vec![root];
    let mut next = 0;
    while let Some(parent) = found.get(next).copied() {
        found.extend(parents.iter().filter(|(_, of)| *of == parent).map(|(pid, _)| *pid));
        next += 1;
    }
    found
}

/// Every process, with its parent.
fn processes() -> Vec<(i32, i32)> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.filter_map(|pid| Some((pid, parent_of(pid)?))).collect()
}

fn parent_of(pid: i32) -> Option<i32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // After the name, which may hold anything, in parentheses: state, parent.
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}
