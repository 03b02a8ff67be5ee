//! A session is handed from one region to another, and takes its order with it.
//!
//! ```text
//!   writer, its session      put photo ─ put album ─┐ token
//!   reader elsewhere                                └─▶ get album ─ get photo      both are there
//!   reader without the token   get album … nothing yet … get album, there ─ get photo: there as well
//! ```
//!
//! Photo and album are in ranges that different nodes lead: no log orders them, only the level does.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use latitude_client::{Keyspace, Level, RangeId, Receipt, Role, Session};
use tokio::time::{Instant, sleep};

use crate::latencies::Latencies;
use crate::ledger::{Write, put};
use crate::world::{Range, WAIT_MAX, World};

/// The site of the writer, of the reader that gets its token, and of the one that does not.
const WRITER: usize = 0;
const READER: usize = 2;
const BYSTANDER: usize = 1;

/// A reader that found nothing waits so long before it looks again.
const POLL: Duration = Duration::from_millis(20);

/// One operation of a handover.
pub(crate) struct Step {
    pub(crate) key: String,
    pub(crate) range: RangeId,
    pub(crate) latency: Duration,
    /// The site whose node served it.
    pub(crate) by: usize,
    pub(crate) role: Option<Role>,
}

/// What was seen of all handovers.
pub(crate) struct Handovers {
    /// The first one: two writes, and the two reads that followed them with the token.
    pub(crate) first: [Step; 4],
    /// The length of its token, in characters.
    pub(crate) token_len: usize,
    /// How many there were.
    pub(crate) count: usize,
    /// Every read with a token.
    pub(crate) reads: Latencies,
    /// How often readers without a token looked for an album that was not there yet.
    pub(crate) too_early: usize,
}

/// Hands sessions over: for each range once, with a photo there and an album in another range.
///
/// # Errors
/// When a reader misses what it must see.
pub(crate) async fn show(
    world: &World,
    ranges: &[Range],
    ledger: &mut Vec<Write>,
    mut progress: impl FnMut(&str) -> std::io::Result<()>,
) -> Result<Handovers> {
    let (mut first, mut token_len) = (None, 0);
    let (mut reads, mut too_early) = (Latencies::default(), 0);
    for (turn, range) in ranges.iter().enumerate() {
        progress(&format!("{} of {}", turn + 1, ranges.len()))?;
        let others = ranges.iter().cycle().skip(turn + 1).take(ranges.len());
        let other = others.clone().find(|other| other.leader != range.leader);
        // If one node leads all, another range must do.
        let album_in = other.or_else(|| others.clone().next()).context("there are no ranges")?;
        let handover = Handover {
            world,
            photo: format!("{}#photo/{turn}", range.zones[0].name),
            photo_in: range.id,
            album: format!("{}#album/{turn}", album_in.zones[0].name),
            album_in: album_in.id,
        };
        let ((steps, token), early) =
            tokio::try_join!(handover.hand_over(ledger), handover.look_on())?;
        too_early += early;
        steps[2..].iter().for_each(|read| reads.add(read.latency));
        if first.is_none() {
            (first, token_len) = (Some(steps), token.len());
        }
    }
    let first = first.context("there are no ranges")?;
    Ok(Handovers { first, token_len, count: ranges.len(), reads, too_early })
}

struct Handover<'a> {
    world: &'a World,
    photo: String,
    photo_in: RangeId,
    album: String,
    album_in: RangeId,
}

impl Handover<'_> {
    /// Writes both, hands the token over, reads both. Gives the steps and the token.
    async fn hand_over(&self, ledger: &mut Vec<Write>) -> Result<([Step; 4], String)> {
        let session = Session::new();
        let writer = self.keyspace(WRITER).with_session(session.clone());
        let photo = self.write(&writer, &self.photo, self.photo_in, ledger).await?;
        let album = self.write(&writer, &self.album, self.album_in, ledger).await?;
        let token = session.token().context("a session that has written has no token")?;

        let reader = self.keyspace(READER).with_session(Session::from_token(&token)?);
        let seen_album = self.must_see(&reader, &self.album, self.album_in).await?;
        let seen_photo = self.must_see(&reader, &self.photo, self.photo_in).await?;
        Ok(([photo, album, seen_album, seen_photo], token))
    }

    /// Looks for the album without the token until it is there; then the photo must be. Gives how often the
    /// album was not.
    async fn look_on(&self) -> Result<usize> {
        let bystander = self.keyspace(BYSTANDER).with_session(Session::new());
        let (mut early, began) = (0, Instant::now());
        while bystander.get(&self.album).await?.value.is_none() {
            early += 1;
            ensure!(
                began.elapsed() < WAIT_MAX,
                "{} has not appeared within {WAIT_MAX:?}",
                self.album
            );
            sleep(POLL).await;
        }
        self.must_see(&bystander, &self.photo, self.photo_in).await?;
        Ok(early)
    }

    fn keyspace(&self, site: usize) -> Keyspace {
        self.world.sites[site].keyspace(Level::Sequential)
    }

    async fn write(
        &self,
        writer: &Keyspace,
        key: &str,
        range: RangeId,
        ledger: &mut Vec<Write>,
    ) -> Result<Step> {
        let level = Level::Sequential;
        let (write, result) = put(writer, level, WRITER, key.to_string(), key.to_string()).await;
        ledger.push(write);
        let answer = result.with_context(|| format!("{key} cannot be written"))?;
        self.step(key, range, answer.latency, answer.receipt)
    }

    async fn must_see(&self, reader: &Keyspace, key: &str, range: RangeId) -> Result<Step> {
        let answer = reader.get(key).await.with_context(|| format!("{key} cannot be read"))?;
        let found = answer.value.as_ref().map(|value| &value.bytes[..]);
        ensure!(
            found == Some(key.as_bytes()),
            "a session that knows of {key} finds {:?} there",
            found.map(String::from_utf8_lossy)
        );
        self.step(key, range, answer.latency, answer.receipt)
    }

    fn step(
        &self,
        key: &str,
        range: RangeId,
        latency: Duration,
        receipt: Option<Receipt>,
    ) -> Result<Step> {
        let receipt = receipt.with_context(|| format!("the answer for {key} has no receipt"))?;
        let by = self.world.site_of(receipt.node)?;
        Ok(Step { key: key.to_string(), range, latency, by, role: receipt.role })
    }
}
