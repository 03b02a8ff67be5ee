//! The session guarantees, deliberately dumb: the definition, over all pairs of operations.

use crate::Level;
use crate::history::{Operation, Outcome, Version};
use crate::linearizable::register::{Action, State, action};

struct Pairs<'a> {
    operations: &'a [Operation],
    /// The order within sessions.
    session: Vec<Vec<bool>>,
}

impl<'a> Pairs<'a> {
    fn new(operations: &'a [Operation]) -> Self {
        let count = operations.len();
        let mut session = vec![vec![false; count]; count];
        for (a, one) in operations.iter().enumerate() {
            for (b, other) in operations.iter().enumerate() {
                let mine =
                    one.process == other.process || other.extras.token_from == Some(one.process);
                session[a][b] =
                    mine && one.return_line.is_some_and(|line| line < other.invoke_line);
            }
        }
        for middle in 0..count {
            for a in 0..count {
                for b in 0..count {
                    session[a][b] |= session[a][middle] && session[middle][b];
                }
            }
        }
        Self { operations, session }
    }

    fn all(&self) -> std::ops::Range<usize> {
        0..self.operations.len()
    }

    fn level(&self, at: usize) -> Level {
        Level::of(&self.operations[at], Level::Causal).unwrap()
    }

    fn action(&self, at: usize) -> Action {
        action(&self.operations[at]).unwrap()
    }

    fn same_key(&self, a: usize, b: usize) -> bool {
        self.operations[a].micro_ops[0].key() == self.operations[b].micro_ops[0].key()
    }

    fn ok(&self, at: usize) -> bool {
        self.operations[at].outcome == Outcome::Ok
    }

    /// What a read that promises something saw.
    fn found(&self, at: usize) -> Option<State> {
        self.action(at).finds().filter(|_| self.ok(at) && self.level(at) != Level::Eventual)
    }

    /// What an operation that may have happened wrote.
    fn left(&self, at: usize) -> Option<State> {
        let happened = self.ok(at) || self.operations[at].outcome.is_unknown();
        self.action(at).leaves().filter(|_| happened)
    }

    /// The write of a value that a read saw, if it carries its session's past.
    fn source(&self, read: usize) -> Option<usize> {
        let found = self.found(read)?;
        found?;
        self.all().find(|&write| {
            self.same_key(read, write)
                && self.left(write) == Some(found)
                && self.level(write) != Level::Eventual
        })
    }

    fn version(&self, at: usize) -> Option<&Version> {
        self.operations[at].extras.version.as_ref()
    }

    /// The acknowledged writes that each guarantee puts before an operation.
    fn before(&self, at: usize) -> [Vec<usize>; 3] {
        let writes = || self.all().filter(|&write| self.ok(write) && self.left(write).is_some());
        let upto = |write: usize, last: usize| write == last || self.session[write][last];
        let reads = |of: usize| self.all().filter(move |&read| self.session[read][of]);
        let seen = |of: usize| reads(of).filter_map(|read| self.source(read)).collect::<Vec<_>>();
        let own = writes().filter(|&write| self.session[write][at]).collect();
        let direct = seen(at);
        let shown =
            writes().filter(|&write| direct.iter().any(|&last| upto(write, last))).collect();
        let further: Vec<usize> = direct.iter().flat_map(|&write| seen(write)).collect();
        let followed =
            writes().filter(|&write| further.iter().any(|&last| upto(write, last))).collect();
        [own, shown, followed]
    }
}

/// Whether every session has its guarantees.
pub(super) fn all_are_kept(operations: &[Operation]) -> bool {
    let pairs = Pairs::new(operations);
    pairs.all().all(|at| read_is_right(&pairs, at) && write_is_right(&pairs, at))
}

fn read_is_right(pairs: &Pairs<'_>, at: usize) -> bool {
    let Some(found) = pairs.found(at) else { return true };
    let log = pairs.level(at).is_log();
    pairs.before(at).into_iter().enumerate().all(|(guarantee, writes)| {
        let demanded: Vec<usize> = writes
            .into_iter()
            .filter(|&write| pairs.same_key(write, at))
            .filter(|&write| !log || guarantee == 0 || pairs.level(write).is_log())
            .collect();
        let older = |write: usize| demanded.iter().any(|&newer| pairs.session[write][newer]);
        let mut candidates = pairs
            .all()
            .filter(|&write| pairs.same_key(write, at) && pairs.left(write) == Some(found));
        let explained = match found {
            Some(_) => candidates.all(|write| !older(write)),
            None => demanded.is_empty() || candidates.any(|write| !older(write)),
        };
        let reads = matches!(pairs.action(at), Action::Read(_));
        let version = pairs.version(at).filter(|_| reads);
        let newest = demanded.iter().filter_map(|&write| pairs.version(write)).max();
        explained && (version.is_none() || newest <= version)
    })
}

fn write_is_right(pairs: &Pairs<'_>, at: usize) -> bool {
    if pairs.left(at).is_none() || !pairs.ok(at) {
        return true;
    }
    let Some(version) = pairs.version(at) else { return true };
    let [own, seen, _] = pairs.before(at);
    let carries = pairs.level(at) != Level::Eventual;
    let before = own.into_iter().chain(seen.into_iter().filter(|_| carries));
    let mut versions =
        before.filter(|&write| pairs.same_key(write, at)).filter_map(|write| pairs.version(write));
    versions.all(|before| before < version)
}
