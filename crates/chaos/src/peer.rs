//! Whose connection it is: the delivery-worker at the other end.
//!
//! A repeat is excused only where the very worker that had made the first attempt was killed. Workers say nothing of
//! themselves to endpoints, so the kernel is asked which process has the socket. One look answers all who ask at the
//! time: five hundred connections may come at once, and a receiver that is slow would be a fault of its own.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use tokio::sync::oneshot;

/// The worker's number among the replicas; `None` where that could not be told, as of one that is dead already.
pub type Worker = Option<u8>;

/// Longest that a receiver waits to be told.
const PATIENCE: Duration = Duration::from_millis(150);

type Question = (u16, oneshot::Sender<Worker>);

#[derive(Clone, Debug)]
pub struct Peers {
    questions: mpsc::Sender<Question>,
}

impl Peers {
    /// `workers` are replicas, and the files that hold their pids.
    pub fn watch(workers: Vec<(u8, PathBuf)>) -> Self {
        let (questions, asked) = mpsc::channel::<Question>();
        std::thread::spawn(move || {
            while let Ok(first) = asked.recv() {
                let all: Vec<Question> = std::iter::once(first).chain(asked.try_iter()).collect();
                let owners = owners(&workers);
                for (port, answer) in all {
                    // One that was not patient enough has gone.
                    let _ = answer.send(owners.get(&port).copied());
                }
            }
        });
        Self { questions }
    }

    /// Who connected from `port` of this machine.
    pub async fn at(&self, port: u16) -> Worker {
        let (answer, answered) = oneshot::channel();
        self.questions.send((port, answer)).ok()?;
        tokio::time::timeout(PATIENCE, answered).await.ok()?.ok()?
    }
}

/// The workers' connections, by their ports.
fn owners(workers: &[(u8, PathBuf)]) -> HashMap<u16, u8> {
    let sockets: HashMap<u64, u8> =
        workers.iter().flat_map(|(replica, file)| sockets(file).into_iter().map(|inode| (inode, *replica))).collect();
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap_or_default();
    let connections = table.lines().filter_map(connection);
    connections.filter_map(|(port, inode)| Some((port, *sockets.get(&inode)?))).collect()
}

/// Inodes of the sockets that a process has.
fn sockets(pid_file: &Path) -> Vec<u64> {
    let pid = std::fs::read_to_string(pid_file).unwrap_or_default();
    let Ok(descriptors) = std::fs::read_dir(format!("/proc/{}/fd", pid.trim())) else { return Vec::new() };
    let inode = |path: PathBuf| {
        let target = std::fs::read_link(path).ok()?;
        target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
    };
    descriptors.filter_map(|one| inode(one.ok()?.path())).collect()
}

/// Local port and inode, in a line of the kernel's table.
fn connection(line: &str) -> Option<(u16, u64)> {
    let mut fields = line.split_whitespace().skip(1);
    let (_, port) = fields.next()?.split_once(':')?;
    // Between them: remote address, state, queues, timer, retransmits, user, timeout.
    Some((u16::from_str_radix(port, 16).ok()?, fields.nth(7)?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[tokio::test]
    async fn a_connection_of_our_own_is_told_from_one_of_nobody() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let port = client.local_addr().unwrap().port();
        let file = std::env::temp_dir().join(format!("posthorn-chaos-{port}.pid"));
        std::fs::write(&file, std::process::id().to_string()).unwrap();
        let peers = Peers::watch(vec![(4, file.clone())]);
        assert_eq!(peers.at(port).await, Some(4));
        drop(client);
        drop(listener);
        assert_eq!(peers.at(port).await, None);
        std::fs::remove_file(file).unwrap();
    }
}
