//! A program with the command line of `latitude`, as far as a cluster is started and asked, and no
//! database behind it. Its nodes answer three questions, one a connection: `init`, `status`, `ping`.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

/// How long a node has to answer a ping and still be live.
const LIVE_WITHIN: Duration = Duration::from_millis(500);

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let flag = |name: &str| {
        let at = args.iter().position(|arg| arg == name).unwrap_or_else(|| panic!("no {name}"));
        args[at + 1].clone()
    };
    match args[0].as_str() {
        "start" => {
            let store = PathBuf::from(flag("--store"));
            fs::write(store.join("args"), args.join("\n")).expect("the store can be written");
            let peers = flag("--join").split(',').map(address).collect();
            serve(address(&flag("--listen")), &store, peers).await
        }
        "init" => answer(ask(address(&flag("--to")), "init").await),
        "admin" => answer(ask(address(&flag("--to")), "status").await),
        other => panic!("no command {other}"),
    }
}

fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

#[expect(clippy::print_stdout, reason = "a command line prints its answer")]
fn answer(said: std::io::Result<String>) -> ExitCode {
    match said {
        Ok(said) if !said.starts_with("error") => {
            println!("{said}");
            ExitCode::SUCCESS
        }
        said => {
            eprintln!("{said:?}");
            ExitCode::FAILURE
        }
    }
}

async fn ask(to: SocketAddr, question: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(to).await?;
    stream.write_all(question.as_bytes()).await?;
    stream.shutdown().await?;
    let mut said = String::new();
    stream.read_to_string(&mut said).await?;
    Ok(said)
}

async fn serve(listen: SocketAddr, store: &Path, peers: Vec<SocketAddr>) -> ExitCode {
    let listener = TcpListener::bind(listen).await.expect("the port is free");
    eprintln!("listening on {listen}");
    loop {
        let (mut stream, _) = listener.accept().await.expect("accepts");
        let (store, peers) = (store.to_owned(), peers.clone());
        tokio::spawn(async move {
            let mut question = String::new();
            stream.read_to_string(&mut question).await?;
            let said = match question.as_str() {
                "ping" => "pong".to_owned(),
                "init" if store.join("initialized").exists() => "error: initialized".to_owned(),
                "init" => {
                    fs::write(store.join("initialized"), "")?;
                    "done".to_owned()
                }
                "status" => status(&peers).await,
                other => format!("error: no question {other:?}"),
            };
            stream.write_all(said.as_bytes()).await
        });
    }
}

async fn status(peers: &[SocketAddr]) -> String {
    let mut nodes = Vec::new();
    for peer in peers {
        let live = matches!(timeout(LIVE_WITHIN, ask(*peer, "ping")).await, Ok(Ok(said)) if said == "pong");
        nodes.push(format!(r#"{{"live": {live}}}"#));
    }
    format!(r#"{{"nodes": [{}]}}"#, nodes.join(", "))
}
