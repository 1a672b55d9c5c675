//! Whose connection it is: the delivery-worker at the other end.
//!
//! A repeat is excused only where the very worker that had made the first attempt was killed. Workers say nothing of
//! themselves to endpoints, so the kernel is asked which process has the socket.

use std::path::PathBuf;

/// The worker's number among the replicas; `None` where that could not be told, as of one that is dead already.
pub type Worker = Option<u8>;

/// Replicas, and the files that hold their pids.
#[derive(Clone, Debug)]
pub struct Workers(pub Vec<(u8, PathBuf)>);

impl Workers {
    /// Who connected from `port` of this machine. Reads files of the kernel's: not for an async task.
    pub fn at(&self, port: u16) -> Worker {
        let socket = format!("socket:[{}]", inode(port)?);
        let has_it = |pid: &str| {
            let Ok(descriptors) = std::fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
            descriptors.filter_map(|one| std::fs::read_link(one.ok()?.path()).ok()).any(|to| to.as_os_str() == &*socket)
        };
        let pid = |file: &PathBuf| std::fs::read_to_string(file).unwrap_or_default();
        let (replica, _) = self.0.iter().find(|(_, file)| has_it(pid(file).trim()))?;
        Some(*replica)
    }
}

/// The socket that is bound to a local port and has somebody at the other end.
fn inode(port: u16) -> Option<u64> {
    let table = std::fs::read_to_string("/proc/net/tcp").ok()?;
    let wanted = format!("0100007F:{port:04X}");
    table.lines().find_map(|line| {
        let mut fields = line.split_whitespace().skip(1);
        let local = fields.next()?;
        // Remote address, state, queues, timer, retransmits, user, timeout.
        let inode: u64 = fields.nth(7)?.parse().ok()?;
        (local == wanted && inode != 0).then_some(inode)
    })
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn a_connection_of_our_own_is_told_from_one_of_nobody() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let port = client.local_addr().unwrap().port();
        let file = std::env::temp_dir().join(format!("posthorn-chaos-{port}.pid"));
        std::fs::write(&file, std::process::id().to_string()).unwrap();
        let workers = Workers(vec![(4, file.clone())]);
        assert_eq!(workers.at(port), Some(4));
        drop(client);
        drop(listener);
        assert_eq!(workers.at(port), None);
        std::fs::remove_file(file).unwrap();
    }
}
