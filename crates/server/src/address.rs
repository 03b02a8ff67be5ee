//! Where a node is: its `host:port`, and the names of its region and zone.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A `host:port` to listen on or to dial. The host is a name, an IPv4 address, or an IPv6 address in
/// brackets; it is resolved when it is used.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct Address(String);

impl Address {
    /// Where a node listens, and a client looks, unless told otherwise.
    pub const DEFAULT: &str = "127.0.0.1:7400";

    /// As `host:port`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether its host stands for every address of this machine.
    pub fn is_wildcard(&self) -> bool {
        let (host, _) = self.split();
        let ip = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
        ip.is_ok_and(|ip| ip.is_unspecified())
    }

    /// Whether somebody else can dial it: not a wildcard host, not port 0.
    pub fn can_be_dialled(&self) -> bool {
        !self.is_wildcard() && self.split().1 != "0"
    }

    fn split(&self) -> (&str, &str) {
        self.0.rsplit_once(':').expect("checked when it was parsed")
    }
}

impl Default for Address {
    fn default() -> Self {
        Self(Self::DEFAULT.to_string())
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A text was not an address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an address: write HOST:PORT, like 127.0.0.1:7400 or [::1]:7400")]
pub struct ParseAddressError(String);

impl FromStr for Address {
    type Err = ParseAddressError;

    fn from_str(text: &str) -> Result<Self, ParseAddressError> {
        let valid = text.rsplit_once(':').is_some_and(|(host, port)| {
            let host_fits = match host.strip_prefix('[') {
                Some(rest) => {
                    rest.strip_suffix(']').is_some_and(|ip| ip.parse::<Ipv6Addr>().is_ok())
                }
                None => {
                    !host.is_empty()
                        && host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
                }
            };
            // `parse` alone would take "+7400", and "07400" would not be found equal to "7400".
            host_fits && port.parse::<u16>().is_ok_and(|number| number.to_string() == port)
        });
        valid.then(|| Self(text.to_string())).ok_or_else(|| ParseAddressError(text.to_string()))
    }
}

/// The name of a region or a zone: 1 to 64 letters, digits, `-`, `_` and `.`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct PlaceName(String);

impl PlaceName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PlaceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A text was not the name of a region or a zone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a name of a region or zone: use 1 to 64 letters, digits, '-', '_' and '.'")]
pub struct ParsePlaceNameError(String);

impl FromStr for PlaceName {
    type Err = ParsePlaceNameError;

    fn from_str(text: &str) -> Result<Self, ParsePlaceNameError> {
        let valid = (1..=64).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
        valid.then(|| Self(text.to_string())).ok_or_else(|| ParsePlaceNameError(text.to_string()))
    }
}

/// What serde needs to check a string as it reads it.
macro_rules! as_string {
    ($name:ident, $error:ident) => {
        impl TryFrom<String> for $name {
            type Error = $error;

            fn try_from(text: String) -> Result<Self, $error> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(value: $name) -> Self {
                value.0
            }
        }
    };
}

as_string!(Address, ParseAddressError);
as_string!(PlaceName, ParsePlaceNameError);

/// `REGION=VALUE`, as the flags that say something of one region take it.
pub fn by_region<T: FromStr>(text: &str) -> Result<(PlaceName, T), String>
where
    T::Err: fmt::Display,
{
    let (region, value) =
        text.split_once('=').ok_or_else(|| format!("{text:?} lacks a '=': write REGION=VALUE"))?;
    Ok((
        region.parse().map_err(|error: ParsePlaceNameError| error.to_string())?,
        value.parse().map_err(|error: T::Err| error.to_string())?,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_both_kinds_of_ip_address_are_addresses() {
        for text in ["127.0.0.1:7400", "db-1.eu.example.org:7400", "[::1]:7400", "localhost:0"] {
            assert_eq!(text.parse::<Address>().map(|a| a.to_string()), Ok(text.to_string()));
        }
    }

    #[test]
    fn what_cannot_be_dialled_or_bound_is_no_address() {
        for text in [
            "",
            "7400",
            ":7400",
            "host:",
            "host:port",
            "host:65536",
            "host:+1",
            "host:07400",
            "::1:7400",
            "[::1]",
            "[x]:1",
            "http://host:7400",
            "a b:1",
        ] {
            assert_eq!(text.parse::<Address>(), Err(ParseAddressError(text.into())), "{text}");
        }
    }

    #[test]
    fn wildcards_and_port_zero_cannot_be_dialled() {
        let can = |text: &str| text.parse::<Address>().map(|address| address.can_be_dialled());
        assert_eq!(can("0.0.0.0:7400"), Ok(false));
        assert_eq!(can("[::]:7400"), Ok(false));
        assert_eq!(can("[0::0]:7400"), Ok(false));
        assert_eq!(can("127.0.0.1:0"), Ok(false));
        assert_eq!(can("127.0.0.1:7400"), Ok(true));
    }

    #[test]
    fn a_flag_for_one_region_splits_at_the_first_equals_sign() {
        let parsed = by_region::<Address>("eu=10.0.0.1:7400");
        assert_eq!(parsed, Ok(("eu".parse().unwrap(), "10.0.0.1:7400".parse().unwrap())));
        assert!(by_region::<Address>("10.0.0.1:7400").unwrap_err().contains("REGION=VALUE"));
        assert!(by_region::<u32>("=1").unwrap_err().contains("region or zone"));
        assert!(by_region::<Address>("eu=nowhere").unwrap_err().contains("HOST:PORT"));
    }
}
