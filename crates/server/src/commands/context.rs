//! What commands share beside their arguments: on the command line nothing yet, in the shell what earlier
//! lines left.

use std::cell::RefCell;
use std::time::Duration;

use latitude_client::{Client, Keyspace, Session};

use crate::address::{Address, PlaceName};
use crate::args::{ConnectArgs, KeyspaceArgs};
use crate::failure::Failure;

/// What commands share.
#[derive(Debug, Default)]
pub struct Context {
    /// The clients in use. Few: a shell's own, and one for each line that names other nodes.
    clients: RefCell<Vec<(Target, Client)>>,
    /// What earlier commands have seen and done, and on the cluster of which nodes.
    session: RefCell<Option<(Vec<Address>, Session)>>,
    /// Whether stdin is something else than a command's data.
    stdin_taken: bool,
}

/// What makes two clients the same.
#[derive(Debug, PartialEq, Eq)]
struct Target {
    to: Vec<Address>,
    region: Option<PlaceName>,
    timeout: Duration,
}

impl Context {
    /// The context of a shell, whose stdin is its lines.
    pub fn of_shell() -> Self {
        Self { stdin_taken: true, ..Self::default() }
    }

    /// A client of these nodes: the one used before, if there is one.
    pub fn client(&self, connect: &ConnectArgs) -> Client {
        let ConnectArgs { to, region, timeout } = connect;
        let target = Target { to: to.clone(), region: region.clone(), timeout: *timeout };
        let mut clients = self.clients.borrow_mut();
        if let Some((_, client)) = clients.iter().find(|(of, _)| *of == target) {
            return client.clone();
        }
        let builder = Client::builder().seeds(super::seeds(to)).timeout(*timeout);
        let client = match region {
            Some(region) => builder.region(region.as_str()).build(),
            None => builder.build(),
        };
        clients.push((target, client.clone()));
        client
    }

    /// From now on commands that ask these nodes are part of the session. Those that ask others are not:
    /// they may be of another cluster, whose answers would break it.
    pub fn begin_session(&self, to: Vec<Address>, session: Session) {
        *self.session.borrow_mut() = Some((to, session));
    }

    /// The session commands are part of.
    pub fn session(&self) -> Option<Session> {
        self.session.borrow().as_ref().map(|(_, session)| session.clone())
    }

    /// A keyspace, at the level asked for, in the session.
    pub fn keyspace(&self, at: &KeyspaceArgs, connect: &ConnectArgs) -> Keyspace {
        let mut keyspace = self.client(connect).keyspace(&at.keyspace);
        if let Some(level) = at.level {
            keyspace = keyspace.with_level(level);
        }
        match &*self.session.borrow() {
            Some((to, session)) if *to == connect.to => keyspace.with_session(session.clone()),
            _ => keyspace,
        }
    }

    /// Says that the command is about to read stdin.
    ///
    /// # Errors
    /// In a shell: what a command took from its stdin would be missing among its lines.
    pub fn take_stdin(&self) -> Result<(), Failure> {
        if self.stdin_taken {
            let message = "- is stdin, which in a shell is its commands: name a file".to_string();
            return Err(Failure::Usage(message));
        }
        Ok(())
    }
}
