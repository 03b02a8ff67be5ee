//! How operations are asked for.

use std::fmt;

use latitude_client::{Keyspace, Level, ReceiptDetail, Session};

/// How operations are asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Manner {
    /// The level asked for.
    pub level: Level,
    /// Whether what one client asks is one session; without, each operation is one of its own.
    pub in_session: bool,
    /// What receipts tell. Without one it is not known who served.
    pub receipt: ReceiptDetail,
}

impl Manner {
    /// A client of its own that asks in this manner.
    pub(crate) fn client(self, keyspace: &Keyspace) -> Keyspace {
        let keyspace = keyspace.clone().with_level(self.level).with_receipt(self.receipt);
        if self.in_session { keyspace.with_session(Session::new()) } else { keyspace }
    }

    /// What receipts tell, as users write it.
    pub(crate) fn receipt_name(self) -> &'static str {
        match self.receipt {
            ReceiptDetail::None => "none",
            ReceiptDetail::Short => "short",
            ReceiptDetail::Full => "full",
        }
    }
}

/// For a person: `sequential in sessions`; of receipts only if they are not as usual.
impl fmt::Display for Manner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.level)?;
        if self.in_session {
            f.write_str(" in sessions")?;
        }
        match self.receipt {
            ReceiptDetail::Short => Ok(()),
            _ => write!(f, ", receipts {}", self.receipt_name()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manner_names_what_is_unusual() {
        let manner = |level, in_session, receipt| Manner { level, in_session, receipt }.to_string();
        assert_eq!(manner(Level::Strict, false, ReceiptDetail::Short), "strict");
        assert_eq!(manner(Level::Sequential, true, ReceiptDetail::Short), "sequential in sessions");
        assert_eq!(manner(Level::Strict, false, ReceiptDetail::None), "strict, receipts none");
    }
}
