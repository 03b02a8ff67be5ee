//! What a session has seen and then ends in the log is over for good, wherever it was when it was ended.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use latitude_client::{
    Keyspace, Level, NodeId, Operation, ReceiptDetail, Session, TypedValue, wire,
};

use crate::common::run_near;
use crate::world::{cluster, create, leader_of, others};

/// How much later everything arrives that the node says which took the write.
const LATE: Duration = Duration::from_millis(300);

/// What is there before, what is added to it unfolded, what ends both, and what is seen before and after that.
struct Story {
    keyspace: &'static str,
    key: &'static str,
    base: Operation,
    added: Operation,
    end: Operation,
    seen: TypedValue,
    left: TypedValue,
}

fn stories() -> Vec<Story> {
    let set = |elements: &[&'static str]| {
        TypedValue::Set(elements.iter().map(|element| (*element).into()).collect())
    };
    let map = |fields: &[(&'static str, &'static str)]| {
        TypedValue::Map(fields.iter().map(|(field, of)| ((*field).into(), (*of).into())).collect())
    };
    let counter = |key, end| Story {
        keyspace: "counters",
        key,
        base: Operation::add(key, 100),
        added: Operation::add(key, 5),
        end,
        seen: TypedValue::Counter(105),
        left: TypedValue::Counter(0),
    };
    let of_set = |key, end, left| Story {
        keyspace: "sets",
        key,
        base: Operation::set_add(key, "old"),
        added: Operation::set_add(key, "new"),
        end,
        seen: set(&["new", "old"]),
        left,
    };
    let of_map = |key, end, left| Story {
        keyspace: "maps",
        key,
        base: Operation::map_put(key, "old", "1"),
        added: Operation::map_put(key, "new", "2"),
        end,
        seen: map(&[("new", "2"), ("old", "1")]),
        left,
    };
    vec![
        counter("reset", Operation::reset("reset")),
        counter("delete", Operation::delete("delete")),
        of_set("remove", Operation::set_remove("remove", "new"), set(&["old"])),
        of_set("delete", Operation::delete("delete"), set(&[])),
        of_map("remove", Operation::map_remove("remove", "new"), map(&[("old", "1")])),
        of_map("delete", Operation::delete("delete"), map(&[])),
        Story {
            keyspace: "flags",
            key: "disable",
            base: Operation::disable("disable"),
            added: Operation::enable("disable"),
            end: Operation::disable("disable"),
            seen: TypedValue::Flag(true),
            left: TypedValue::Flag(false),
        },
    ]
}

async fn operate(keyspace: &Keyspace, operation: Operation) -> Result<()> {
    for answer in keyspace.batch(vec![operation]).await {
        answer?;
    }
    Ok(())
}

/// Pitfall B9: the leader does not have the write yet that the session has seen, and it would come after what ended it.
#[test]
fn what_a_session_saw_and_ended_does_not_come_back_when_it_is_folded() {
    let mut cluster = cluster(74);
    for (name, of) in [
        ("counters", wire::ValueType::Counter),
        ("sets", wire::ValueType::Set),
        ("maps", wire::ValueType::Map),
        ("flags", wire::ValueType::Flag),
    ] {
        create(&mut cluster, name, of);
    }
    for at in 0..stories().len() {
        let Story { keyspace, key, .. } = stories().swap_remove(at);
        let leader = leader_of(&mut cluster, keyspace, key);
        let [x, other] = others(leader);
        run_near(&mut cluster, leader, move |host| async move {
            let strict = host.client.keyspace(keyspace).with_level(Level::Strict);
            operate(&strict, stories().swap_remove(at).base).await
        });
        for to in [leader, other] {
            cluster.delay(x, to, LATE);
        }
        cluster.run_for(Duration::from_secs(2)).unwrap();
        let took = run_near(&mut cluster, x, move |host| async move {
            let Story { added, end, seen, .. } = stories().swap_remove(at);
            let session = Session::new();
            let all = host.client.keyspace(keyspace).with_receipt(ReceiptDetail::Full);
            let near = all.clone().with_level(Level::Causal);
            // Learns both ways, outside of the session.
            near.get_any(key).await?;
            all.clone().with_level(Level::Strict).get_any(key).await?;
            operate(&near, added).await?;
            let got = near.with_session(session.clone()).get_any(key).await?;
            ensure!(got.value.value == seen, "{:?}", got.value);
            let receipt = got.receipt.context("a receipt was asked for")?;
            let unfolded: Vec<_> = receipt.unfolded.iter().map(|of| of.node).collect();
            ensure!(unfolded == [NodeId(x)], "{receipt}");
            let asked = host.now();
            let strict = all.with_level(Level::Strict).with_session(session);
            operate(&strict, end).await?;
            let took = host.now() - asked;
            let got = strict.get_any(key).await?.value.value;
            let left = stories().swap_remove(at).left;
            ensure!(got == left, "its own session sees {got:?}");
            Ok(took)
        });
        cluster.hasten_all();
        cluster.run_for(Duration::from_secs(4)).unwrap();
        for node in 1..=3 {
            run_near(&mut cluster, node, move |host| async move {
                let left = stories().swap_remove(at).left;
                for level in Level::ALL {
                    let got = host.client.keyspace(keyspace).with_level(level).get_any(key).await?;
                    let got = got.value.value;
                    ensure!(got == left, "{key} of {keyspace} is {got:?} {level} at {node}");
                }
                Ok(())
            });
        }
        println!("{key} of {keyspace}: {took:?}");
        assert!(took > LATE, "{key} of {keyspace}: the leader had it already after {took:?}");
    }
}
