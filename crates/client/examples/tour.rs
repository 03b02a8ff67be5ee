//! A tour of the SDK against a running cluster: `cargo run --example tour -- 127.0.0.1:7400`.

use std::time::Duration;

use latitude_client::{
    CasOutcome, Client, Expected, Level, Operation, Outcome, ReceiptDetail, Result, Scan, Session,
};

#[tokio::main(flavor = "current_thread")]
#[expect(clippy::print_stdout, reason = "an example speaks to a person")]
async fn main() -> Result<()> {
    let seed = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:7400".to_string());
    let client =
        Client::builder().seeds([seed]).region("eu").timeout(Duration::from_secs(10)).build();

    // Each handle says how it asks: here for linearizable operations and full receipts.
    let zones =
        client.keyspace("default").with_level(Level::Strict).with_receipt(ReceiptDetail::Full);

    // A write is retried by itself, always with the same id: it happens once.
    let put = zones.put("zone/berlin", "UTC+1").await?;
    println!("put      version {} after {} attempt(s)", put.value, put.attempts);
    if let Some(receipt) = put.receipt {
        println!("         {receipt}, durable on {:?}", receipt.durable_on);
    }

    let get = zones.get("zone/berlin").await?;
    if let Some(value) = &get.value {
        println!("get      {} in {:?}", value.bytes.escape_ascii(), get.latency);
    }

    // Summer: only if nobody has written since.
    let expected = match get.value {
        Some(value) => Expected::Version(value.version),
        None => Expected::Absent,
    };
    match zones.compare_and_set("zone/berlin", expected, Some("UTC+2".into())).await?.value {
        CasOutcome::Applied { version } => println!("cas      applied, version {version}"),
        CasOutcome::Mismatch { found } => println!("cas      somebody was faster: {found:?}"),
    }

    // Independent operations: a result each, in order; one may fail while others succeed.
    let operations = vec![
        Operation::put("zone/lima", "UTC-5"),
        Operation::put("zone/tokyo", "UTC+9"),
        Operation::get("zone/berlin"),
    ];
    for result in zones.batch(operations).await {
        match result {
            Ok(answer) => match answer.value {
                Outcome::Got(value) => println!("batch    got {:?}", value.map(|v| v.bytes)),
                Outcome::Written(version) => println!("batch    wrote version {version}"),
                other => println!("batch    {other:?}"),
            },
            Err(error) if error.may_have_applied() => println!("batch    unknown: {error}"),
            Err(error) => println!("batch    not applied: {error}"),
        }
    }

    // Pages of a scan go on over ranges.
    let mut next = Some(Scan::prefix("zone/").limit(2));
    while let Some(scan) = next {
        let page = zones.scan(scan).await?.value;
        for row in &page.rows {
            println!("scan     {} = {}", row.key.escape_ascii(), row.value.escape_ascii());
        }
        next = page.next;
    }

    // A session: each operation takes the earlier ones into account, whichever replica serves it. These
    // reads come from the nearest one, at most half a second stale, and never without the put.
    let session = Session::new();
    let near = zones
        .clone()
        .with_level(Level::Sequential)
        .with_max_staleness(Duration::from_millis(500))
        .with_session(session.clone());
    near.put("zone/oslo", "UTC+1").await?;
    let get = near.get("zone/oslo").await?;
    if let Some(receipt) = get.receipt {
        println!("session  {receipt}");
    }
    // Another process goes on from here: `Session::from_token`.
    println!("session  {}", session.token().unwrap_or_default());

    zones.delete("zone/lima").await?;
    Ok(())
}
