//! Names are what people type and read.

use std::collections::BTreeSet;

use latitude_probe::{Mark, Marks, PLANTED, Plant};

fn is_kebab(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|c| c.is_ascii_lowercase() || c == '-')
}

#[test]
fn every_mark_and_every_plant_has_a_name_of_its_own_and_a_sentence() {
    let marks = Mark::ALL.iter().map(|mark| (mark.name(), mark.meaning()));
    let plants = Plant::ALL.iter().map(|plant| (plant.name(), plant.meaning()));
    let mut names = BTreeSet::new();
    for (name, meaning) in marks.chain(plants) {
        assert!(is_kebab(name) && names.insert(name), "{name}");
        assert!(meaning.ends_with('.') && !meaning.contains('|'), "{name}: {meaning:?}");
    }
}

#[test]
fn a_mark_counts_its_own_hits() {
    let before = Marks::now();
    Mark::ALL[3].hit();
    Mark::ALL[3].hit();
    let now = Marks::now();
    let hit: Vec<_> = now.since(&before).filter(|(_, count)| *count > 0).collect();
    assert_eq!(hit, [(Mark::ALL[3], 2)]);
}

#[test]
fn without_the_feature_no_bug_is_there() {
    assert_eq!(
        Plant::ALL.iter().any(|plant| plant.is_on()),
        PLANTED && std::env::var("PLANT").is_ok()
    );
    for plant in Plant::ALL {
        assert_eq!(Plant::named(plant.name()), Some(*plant));
    }
    assert_eq!(Plant::named("none"), None);
}
