//! The data: `zone1970.tab` of the IANA time-zone database, where each row stands for a time zone
//! whose clocks have agreed since 1970. In the public domain, as its first lines say.
//!
//! ```text
//!   DE,DK,NO,SE,SJ ⇥ +5230+01322 ⇥ Europe/Berlin ⇥ most of Germany
//!   countries        coordinates   the key         comment, if any
//! ```

use anyhow::{Context, Result, bail};

/// The table shipped with the demo.
const TABLE: &str = include_str!("../data/zone1970.tab");

/// A time zone as it is stored: one key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Zone {
    /// Its name, like `Europe/Berlin`: the key.
    pub(crate) name: String,
    /// Its countries, coordinates and comment, as in the table but with single spaces between: the value.
    pub(crate) description: String,
}

/// Every zone of the table, by name.
///
/// # Errors
/// When the table is not of its form, which names the line.
pub(crate) fn all() -> Result<Vec<Zone>> {
    parse(TABLE)
}

fn parse(table: &str) -> Result<Vec<Zone>> {
    let rows = table.lines().enumerate().filter(|(_, line)| !line.starts_with('#'));
    let zones = rows.map(|(index, line)| {
        parse_row(line).with_context(|| format!("line {} of the table of zones", index + 1))
    });
    let mut zones = zones.collect::<Result<Vec<_>>>()?;
    zones.sort_by(|a, b| a.name.cmp(&b.name));
    if let Some(pair) = zones.windows(2).find(|pair| pair[0].name == pair[1].name) {
        bail!("the table has two rows for {}", pair[0].name);
    }
    Ok(zones)
}

fn parse_row(line: &str) -> Result<Zone> {
    let fields: Vec<&str> = line.split('\t').collect();
    let (countries, coordinates, name, comment) = match fields[..] {
        [countries, coordinates, name] => (countries, coordinates, name, None),
        [countries, coordinates, name, comment] => (countries, coordinates, name, Some(comment)),
        _ => bail!("{} columns instead of 3 or 4", fields.len()),
    };
    if name.is_empty() {
        bail!("the zone has no name");
    }
    let mut description = format!("{countries} {coordinates}");
    if let Some(comment) = comment {
        description.push(' ');
        description.push_str(comment);
    }
    Ok(Zone { name: name.to_string(), description })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_has_a_comment_or_none() {
        let table = "# words\nDE,DK\t+5230+01322\tEurope/Berlin\tmost of Germany\n\
                     AT\t+4813+01620\tAmerica/Nowhere\n";
        let zone = |name: &str, description: &str| Zone {
            name: name.to_string(),
            description: description.to_string(),
        };
        let expected = [
            zone("America/Nowhere", "AT +4813+01620"),
            zone("Europe/Berlin", "DE,DK +5230+01322 most of Germany"),
        ];
        assert_eq!(parse(table).unwrap(), expected);
    }

    #[test]
    fn a_row_of_another_form_is_named_by_its_line() {
        for row in ["AT\tEurope/Vienna", "AT\t+4813+01620\tEurope/Vienna\tx\ty", "", "AT\t+48\t"] {
            let error = parse(&format!("# words\n{row}\n")).unwrap_err();
            assert!(error.to_string().contains("line 2"), "{error:#}");
        }
    }

    #[test]
    fn a_zone_named_twice_is_refused() {
        let error = parse("AT\t+1\tEurope/Vienna\nAT\t+2\tEurope/Vienna\n").unwrap_err();
        assert!(error.to_string().contains("two rows for Europe/Vienna"), "{error:#}");
    }

    #[test]
    fn the_table_shipped_holds_the_world() {
        let zones = all().unwrap();
        assert_eq!(zones.len(), 312);
        let berlin = zones.iter().find(|zone| zone.name == "Europe/Berlin").unwrap();
        assert!(berlin.description.starts_with("DE,"), "{}", berlin.description);
        assert!(zones.is_sorted_by(|a, b| a.name < b.name));
    }
}
