//! What is new with sequential reads: tokens that are damaged, strange or of the future, bounds that nobody
//! can prove, levels that may not be accepted, and nodes that hold no replica.

use anyhow::{Context, Result, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use latitude_client::{Level, Reason, Session, Timestamp, wire as v1};
use latitude_consistency::{TOKEN_LEN_MAX, Token};
use latitude_tests::raw::{self, Raw};
use latitude_tests::{Bed, eventually};
use latitude_types::{ClusterId, ClusterIdentity, NodeId, Past};
use rand::rngs::SmallRng;
use rand::{Rng, RngExt, SeedableRng};
use xxhash_rust::xxh3::xxh3_128;

use super::{KEYSPACE, ensure_refused, get, put};

/// How far in the future a made-up token is.
const FAR_MS: u64 = 60_000;

fn sequential(operation: v1::command::Operation) -> v1::Command {
    v1::Command { level: v1::Level::Sequential as i32, ..raw::command(KEYSPACE, operation) }
}

/// A token as a node gives it, after a write.
async fn token_of(node: &Raw) -> Result<Bytes> {
    let reply = node.execute(sequential(put("token", "made"))).await?;
    ensure!(!reply.token.is_empty(), "a write's answer carries no token");
    Ok(reply.token)
}

/// What is wrong, the token, and the reason it is refused for.
async fn bad_tokens(node: &Raw) -> Result<Vec<(String, Vec<u8>, Reason)>> {
    let genuine = token_of(node).await?;
    let token = Token::decode(&genuine)?;
    let whose = token.cluster;
    let of = |cluster: ClusterIdentity| {
        let mut token = token.clone();
        token.cluster = cluster;
        token.encode()
    };
    let mut bad = vec![
        ("a byte".to_owned(), vec![1], Reason::TokenInvalid),
        (
            "a token cut short".to_owned(),
            genuine[..genuine.len() - 1].to_vec(),
            Reason::TokenInvalid,
        ),
        (
            "a token with something behind it".to_owned(),
            [&genuine[..], b"!"].concat(),
            Reason::TokenInvalid,
        ),
        (
            "a token of another cluster".to_owned(),
            of(ClusterIdentity { id: ClusterId([7; 16]), ..whose }),
            Reason::TokenForeign,
        ),
        (
            "a token of the cluster before it was restored".to_owned(),
            of(ClusterIdentity { incarnation: whose.incarnation.wrapping_sub(1), ..whose }),
            Reason::TokenForeign,
        ),
        (
            "a token of the cluster after it was restored".to_owned(),
            of(ClusterIdentity { incarnation: whose.incarnation + 1, ..whose }),
            Reason::TokenForeign,
        ),
        ("a token longer than any".to_owned(), vec![1; TOKEN_LEN_MAX + 1], Reason::TokenInvalid),
        ("a token as text".to_owned(), BASE64.encode(&genuine).into_bytes(), Reason::TokenInvalid),
    ];
    let mut far = token.clone();
    far.meet_clock(Timestamp(node.clock().await?).plus_ms(FAR_MS));
    bad.push(("a token a minute ahead".to_owned(), far.encode(), Reason::TokenFromFuture));
    let mut end = token.clone();
    end.meet_clock(Timestamp::MAX);
    bad.push(("a token of the end of time".to_owned(), end.encode(), Reason::TokenFromFuture));
    // Each byte but the checksum's own takes part in it.
    for at in 0..genuine.len() {
        let mut damaged = genuine.to_vec();
        damaged[at] ^= 0x10;
        bad.push((format!("a token damaged at byte {at}"), damaged, Reason::TokenInvalid));
    }
    Ok(bad)
}

pub(super) async fn tokens_are_refused_for_what_is_wrong_with_them(node: &Raw) -> Result<()> {
    for (what, token, reason) in bad_tokens(node).await? {
        for command in [
            sequential(get("kept")),
            raw::command(KEYSPACE, get("kept")),
            sequential(put("kept", "by a bad token")),
        ] {
            let command = v1::Command { token: token.clone().into(), ..command };
            let error = node.execute(command).await.err();
            let error = error.with_context(|| format!("{what} was taken"))?;
            ensure_refused(&what, &error, &[reason])?;
            ensure!(!error.may_have_applied(), "{what}: {error:?}");
        }
    }
    Ok(())
}

/// Bytes nobody vouches for, with a checksum that fits: whatever they say is refused or taken as what a
/// session may have seen, and a session without them finds all as it was.
pub(super) async fn made_up_tokens_do_no_harm(node: &Raw) -> Result<()> {
    let genuine = Token::decode(&token_of(node).await?)?;
    let mut random = SmallRng::seed_from_u64(21);
    let whole = genuine.encode();
    // What precedes the checksum and its kind; and of that the version, the cluster, its life and the clock,
    // which are left as they are, so that the rest is looked at.
    let body = &whole[..whole.len() - 17];
    let (head, _) = body.split_at(1 + 16 + 1 + 8);
    let mut taken = 0;
    for round in 0..300 {
        let mut body = body.to_vec();
        if round % 3 == 0 {
            body.truncate(head.len());
            body.resize(head.len() + random.random_range(0..60), 0);
            random.fill_bytes(&mut body[head.len()..]);
        } else {
            let at = random.random_range(head.len()..body.len());
            body[at] = random.random();
        }
        let sum = xxh3_128(&body).to_le_bytes();
        body.push(0);
        body.extend_from_slice(&sum);
        let command = v1::Command { token: body.clone().into(), ..sequential(get("kept")) };
        match node.execute(command).await {
            Ok(_) => taken += 1,
            Err(error) => ensure_refused("noise", &error, &[Reason::TokenInvalid])
                .with_context(|| format!("the token {body:02x?}"))?,
        }
    }
    // One that fits together is taken.
    ensure!(taken > 0, "no noise was a token");
    // But not one that names nodes by the thousand: every session that met its writes would grow by them.
    let mut crowded = genuine.clone();
    let mut past = Past::default();
    (1..=8_000).for_each(|node| past.seen.raise(NodeId(node), genuine.clock()));
    crowded.meet_past(&past);
    let command = v1::Command { token: crowded.encode().into(), ..sequential(get("kept")) };
    let error = node.execute(command).await.err().context("a crowd of nodes was taken")?;
    ensure_refused("a crowd of nodes", &error, &[Reason::TokenInvalid])
}

/// A follower that cannot prove that its answer is fresh does not give one, and says so; the request moves on
/// and the leader answers it.
pub(super) async fn a_bound_nobody_can_prove_moves_the_read_on(bed: &Bed) -> Result<()> {
    let range = bed.ranges(KEYSPACE).await?.pop().context("the keyspace has a range")?;
    for node in bed.cluster().nodes() {
        let raw = Raw::to(node.address())?;
        let here = raw.client().hello(v1::HelloRequest::default()).await?.into_inner().node;
        let no_staleness = v1::Command { max_staleness_ms: Some(0), ..sequential(get("kept")) };
        let reply = raw.execute(no_staleness.clone()).await?;
        let receipt = reply.receipt.context("a receipt was asked for")?;
        let leads = receipt.node == range.leader && receipt.role() == v1::Role::Leader;
        ensure!(leads && receipt.level_given() == v1::Level::Sequential, "{receipt:?}");
        let stays = v1::Command { no_forward: true, ..no_staleness };
        match raw.execute(stays).await {
            Ok(_) => ensure!(here == range.leader, "n{here} proved what it cannot know"),
            Err(error) => {
                ensure!(here != range.leader, "the leader is not fresh enough: {error:?}");
                ensure_refused("no staleness", &error, &[Reason::StalenessUnproved])?;
                ensure!(!error.may_have_applied() && error.is_retryable(), "{error:?}");
            }
        }
    }
    Ok(())
}

pub(super) async fn only_weaker_levels_are_accepted_instead(node: &Raw) -> Result<()> {
    let (strict, sequential) = (v1::Level::Strict as i32, v1::Level::Sequential as i32);
    for (what, level, accept, reason) in [
        ("a stronger level", sequential, vec![strict], Reason::ArgumentInvalid),
        ("the same level", sequential, vec![sequential], Reason::ArgumentInvalid),
        ("a stronger level behind", sequential, vec![4, strict], Reason::ArgumentInvalid),
        ("no level", strict, vec![0], Reason::ArgumentInvalid),
        ("a level nobody knows", strict, vec![9], Reason::LevelUnknown),
        ("a level below zero", strict, vec![sequential, -1], Reason::LevelUnknown),
    ] {
        for operation in [get("kept"), put("kept", "instead")] {
            let command =
                v1::Command { level, accept: accept.clone(), ..raw::command(KEYSPACE, operation) };
            let error = node.execute(command).await.err();
            let error = error.with_context(|| format!("{what} was accepted"))?;
            ensure_refused(what, &error, &[reason])?;
            ensure!(!error.may_have_applied(), "{what}: {error:?}");
        }
    }
    Ok(())
}

/// A node without a replica passes a sequential read on; if it may not, it says who knows more.
pub(super) async fn a_node_without_a_replica_passes_the_read_on(bed: &Bed) -> Result<()> {
    const FAR: &str = "far";
    let place = vec![v1::RegionReplicas { region: "eu".to_owned(), replicas: 1 }];
    let request = v1::CreateKeyspaceRequest {
        name: FAR.to_owned(),
        place,
        default_level: v1::Level::Strict as i32,
        ..Default::default()
    };
    bed.client("eu").admin().create_keyspace(request).await?;
    bed.client("eu").keyspace(FAR).put("k", "v").await?;
    let holder = bed.number(0).await?;
    for node in &bed.cluster().nodes()[1..] {
        let raw = Raw::to(node.address())?;
        let read = v1::Command { keyspace: FAR.to_owned(), ..sequential(get("k")) };
        let reply = eventually("the node has heard of the keyspace", async || {
            Ok(raw.execute(read.clone()).await?)
        })
        .await?;
        let receipt = reply.receipt.context("a receipt was asked for")?;
        ensure!(receipt.node == holder, "{receipt:?}");
        let stays = v1::Command { no_forward: true, ..read };
        let error = raw.execute(stays).await.err().context("served without a replica")?;
        ensure_refused("no replica", &error, &[Reason::RangeNotHere])?;
        let hint = error.leader.as_ref().map(|hint| hint.node.0);
        ensure!(hint == Some(holder) && !error.may_have_applied(), "{error:?}");
    }
    Ok(())
}

/// A session goes on in another process, at another node, by its text alone.
pub(super) async fn a_token_is_handed_on_as_text(bed: &Bed) -> Result<()> {
    let open = |region| bed.client(region).keyspace(KEYSPACE).with_level(Level::Sequential);
    let mut text = String::new();
    for (round, region) in ["eu", "ap", "us", "ap", "eu"].into_iter().enumerate() {
        let session = if round == 0 { Session::new() } else { Session::from_token(&text)? };
        let keyspace = open(region).with_session(session.clone());
        let found = keyspace.get("handed on").await?.value.map(|found| found.bytes);
        let wanted = round.checked_sub(1).map(|before| Bytes::from(before.to_string()));
        ensure!(found == wanted, "round {round} in {region} found {found:?}, not {wanted:?}");
        keyspace.put("handed on", round.to_string()).await?;
        text = session.token().context("the session has seen something")?;
    }
    Ok(())
}

/// The SDK refuses such tokens before it sends them, or passes on what the server says.
pub(super) async fn the_sdk_tells_the_same_of_tokens(bed: &Bed, node: &Raw) -> Result<()> {
    for (what, token, reason) in bad_tokens(node).await? {
        let refused = match Session::from_token(&BASE64.encode(token)) {
            Err(error) => error,
            Ok(session) => {
                let keyspace = bed.client("eu").keyspace(KEYSPACE).with_session(session.clone());
                let write = keyspace.put("kept", "by a bad token").await.err();
                ensure_refused(&what, &write.with_context(|| what.clone())?, &[reason])?;
                keyspace.get("kept").await.err().with_context(|| format!("{what} was taken"))?
            }
        };
        ensure_refused(&what, &refused, &[reason])?;
        ensure!(!refused.may_have_applied(), "{what}: {refused:?}");
    }
    Ok(())
}
