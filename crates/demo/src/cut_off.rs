//! A region is cut off, and goes on: what its clients write is read there at once, nowhere else, and everywhere
//! once it is back.
//!
//! ```text
//!   ap   ─ put (causal) ─ get ──────────────── back ──────────▶ in the log
//!   eu         get: nothing of it, at any level   │   get ──▶ the value
//!              ✂ no message gets in or out of ap ─┘
//! ```

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use latitude_client::{Keyspace, Level, ReceiptDetail};
use tokio::time::{Instant, sleep};

use crate::ledger::{Write, put};
use crate::world::{Range, WAIT_MAX, World};

/// The region that is cut off.
pub(crate) const REGION: &str = "ap";
/// How long before its clients go on: what was under way has failed by then.
const CALM: Duration = Duration::from_millis(500);
const POLL: Duration = Duration::from_millis(10);

/// Something that happened.
pub(crate) struct Event {
    /// Since the region was cut off.
    pub(crate) at: Duration,
    /// In which region; of no client if none.
    pub(crate) region: Option<String>,
    /// What was asked for, or done.
    pub(crate) what: String,
    /// What came of it.
    pub(crate) answer: String,
    /// How long it took.
    pub(crate) took: Option<Duration>,
}

/// Cuts the region off, lets clients write and read, and lets it back.
///
/// # Errors
/// When an answer is not what its level promises, or the write is not everywhere in time.
pub(crate) async fn show(
    world: &World,
    ranges: &[Range],
    ledger: &mut Vec<Write>,
) -> Result<(String, Vec<Event>)> {
    let wan = world.cluster.wan().context("the cluster has no wide-area links")?;
    let site = |region: &str| {
        let found = world.sites.iter().position(|site| site.region == region);
        found.with_context(|| format!("no node is in {region}"))
    };
    let (cut, far) =
        (site(REGION)?, (0..world.sites.len()).find(|at| world.sites[*at].region != REGION));
    let far = far.context("there is one region only")?;
    // Led outside, so that strict reads there go on.
    let outside = |range: &&Range| range.leader != world.sites[cut].node;
    let range = ranges.iter().find(outside).context("every range is led where nothing gets out")?;
    let key = format!("{}#cut-off", range.zones[0].name);
    let value = format!("written in {REGION} while it was cut off");
    let keyspace = |site: usize, level: Level| -> Keyspace {
        world.sites[site].keyspace(level).with_receipt(ReceiptDetail::Full)
    };
    // Connections and routes are there before the story begins.
    for at in [cut, far] {
        for level in [Level::Causal, Level::Strict] {
            keyspace(at, level).get(&key).await?;
        }
    }
    let mut story = Story { began: Instant::now(), events: Vec::new() };
    wan.isolate(REGION);
    story.note(None, format!("{REGION} is cut off"), String::new(), None);
    let told = tell(world, &mut story, &keyspace, (cut, far), &key, &value, ledger).await;
    wan.heal_all();
    told?;
    let back = Instant::now();
    story.note(None, format!("{REGION} is back"), String::new(), None);
    for (at, level) in [(far, Level::Strict), (far, Level::Causal), (cut, Level::Strict)] {
        let (answer, took) = loop {
            let asked = Instant::now();
            let found = keyspace(at, level).get(&key).await.ok().and_then(|answer| {
                let receipt = answer.receipt.map(|receipt| receipt.to_string());
                answer.value.map(|value| (value.bytes, receipt))
            });
            match found {
                Some((bytes, receipt)) => {
                    ensure!(bytes == value.as_bytes(), "{key} holds what nobody wrote");
                    break (receipt.unwrap_or_default(), asked.elapsed());
                }
                None => ensure!(
                    back.elapsed() < WAIT_MAX,
                    "{key} is not seen {level} in {} {WAIT_MAX:?} after {REGION} is back",
                    world.sites[at].region
                ),
            }
            sleep(POLL).await;
        };
        let region = world.sites[at].region.clone();
        story.note(
            Some(region),
            format!("get, {level}"),
            format!("the value: {answer}"),
            Some(took),
        );
    }
    Ok((key, story.events))
}

/// What happens while nothing gets in or out.
async fn tell(
    world: &World,
    story: &mut Story,
    keyspace: &impl Fn(usize, Level) -> Keyspace,
    (cut, far): (usize, usize),
    key: &str,
    value: &str,
    ledger: &mut Vec<Write>,
) -> Result<()> {
    sleep(CALM).await;
    let region = |at: usize| Some(world.sites[at].region.clone());
    let writer = keyspace(cut, Level::Causal);
    let (write, result) = put(&writer, Level::Causal, cut, key.into(), value.into()).await;
    ledger.push(write);
    let answer = result.context("a causal write was not taken where it was asked for")?;
    let receipt = answer.receipt.context("a receipt was asked for")?;
    let written = format!("taken: {receipt}");
    story.note(region(cut), "put, causal".into(), written, Some(answer.latency));
    let answer = keyspace(cut, Level::Causal).get(key).await?;
    let found = answer.value.context("a causal read misses what was just written beside it")?;
    ensure!(found.bytes == value.as_bytes(), "a causal read found something else");
    let receipt = answer.receipt.context("a receipt was asked for")?;
    let seen = format!("the value: {receipt}");
    story.note(region(cut), "get, causal".into(), seen, Some(answer.latency));
    for level in [Level::Strict, Level::Causal] {
        let answer = keyspace(far, level).get(key).await?;
        ensure!(answer.value.is_none(), "{level} reads elsewhere see what cannot have got there");
        let receipt = answer.receipt.context("a receipt was asked for")?;
        let nothing = format!("nothing yet: {receipt}");
        story.note(region(far), format!("get, {level}"), nothing, Some(answer.latency));
    }
    Ok(())
}

struct Story {
    began: Instant,
    events: Vec<Event>,
}

impl Story {
    fn note(
        &mut self,
        region: Option<String>,
        what: String,
        answer: String,
        took: Option<Duration>,
    ) {
        self.events.push(Event { at: self.began.elapsed(), region, what, answer, took });
    }
}
