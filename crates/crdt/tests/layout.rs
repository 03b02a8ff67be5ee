//! The bytes of what is stored: contents and elements in rows of the base, operations in log entries and
//! deltas, fates in rows of ids. If one of these changes, the version byte of what holds it must.

use bytes::Bytes;
use latitude_crdt::{Content, Element, Expected, Fate, LogPlace, Op};
use latitude_types::{ClientId, NodeId, OperationId, OperationKind, Stamp, Timestamp, WriteTime};
use serde::Serialize;
use serde::de::DeserializeOwned;

fn hex<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(value: &T) -> String {
    let bytes = postcard::to_stdvec(value).expect("it serializes");
    assert_eq!(postcard::from_bytes(&bytes).as_ref(), Ok(value));
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn element(kind: OperationKind, logged: Option<LogPlace>) -> Element {
    let id =
        OperationId { birth: Timestamp::from_ms(5), client: ClientId([7; 16]), sequence: 3, kind };
    Element { id, logged, name: Bytes::from_static(b"f"), value: Bytes::from_static(b"v") }
}

#[test]
fn the_layout_of_contents_never_changes() {
    let stamp = Stamp { time: Timestamp::from_ms(9), node: NodeId(1) };
    let logged = Some(LogPlace { stamp, ordinal: 2 });
    let (local, log) = (element(OperationKind::Local, None), element(OperationKind::Log, logged));
    let client = "07".repeat(16);
    for (content, layout) in [
        (Content::Deleted, "00".to_string()),
        (Content::Plain(Bytes::from_static(b"v")), "010176".to_string()),
        (
            Content::Live(vec![local, log]),
            format!(
                "02028080800a{client}03010001660176\
                     8080800a{client}03000180808012010201660176"
            ),
        ),
        (Content::Counter(-3), "0305".to_string()),
        (Content::Counter(i128::from(i64::MAX) + 1), "0380808080808080808002".to_string()),
    ] {
        assert_eq!(hex(&content), layout);
    }
}

#[test]
fn the_layout_of_operations_never_changes() {
    let bytes = || Bytes::from_static(b"b");
    let stamp = Stamp { time: Timestamp::from_ms(9), node: NodeId(1) };
    let version = Expected::Version(WriteTime::of_log_write(stamp, 2));
    let swap = |expected, new_value| Op::CompareAndSet { expected, new_value };
    for (op, layout) in [
        (Op::Put { value: bytes() }, "000162"),
        (Op::Delete, "01"),
        (swap(Expected::Absent, Some(bytes())), "0200010162"),
        (swap(Expected::Value(bytes()), None), "0201016200"),
        (swap(version, None), "02028080801201010200"),
        (Op::Add { amount: -1 }, "0301"),
        (Op::AddWithin { amount: 1, least: Some(0), most: None }, "0402010000"),
        (Op::Reset, "05"),
        (Op::SetAdd { element: bytes() }, "060162"),
        (Op::SetRemove { element: bytes() }, "070162"),
        (Op::MapPut { field: bytes(), value: bytes() }, "0801620162"),
        (Op::MapRemove { field: bytes() }, "090162"),
        (Op::Enable, "0a"),
        (Op::Disable, "0b"),
    ] {
        assert_eq!(hex(&op), layout, "{op:?}");
    }
}

#[test]
fn the_layout_of_fates_never_changes() {
    assert_eq!((hex(&Fate::TookEffect).as_str(), hex(&Fate::Spent).as_str()), ("00", "01"));
}
