use super::*;

fn read(text: &str) -> Result<History, HistoryError> {
    History::read(text.as_bytes())
}

/// The history whose lines are these `(type, process, value)`.
fn lines(events: &[(&str, u64, &str)]) -> String {
    let line = |(index, (phase, process, value)): (usize, &(&str, u64, &str))| {
        format!(
            r#"{{"index":{index},"type":"{phase}","process":{process},"time":{index},"f":"txn","value":{value}}}"#
        ) + "\n"
    };
    events.iter().enumerate().map(line).collect()
}

#[test]
fn every_micro_operation_and_field_is_written_as_it_was_read() {
    let value = concat!(
        r#"[["r","k",null],["w","k",1],["cas","k",[1,2]],["cas","k",[null,2]],["append","k",3],["add","k",-4],"#,
        r#"["badd","k",[1,0,9]],["pia","k",5],["mput","k",["f",6]],["mrm","k","f"],["en","k",null],"#,
        r#"["dis","k",null],["rm","k",7],["d","k",null]]"#
    );
    let text = lines(&[("invoke", 0, value), ("info", 0, value)])
        + r#"{"index":2,"type":"invoke","process":1,"time":7,"f":"txn","value":[["r","a",null],["r","b",null]],"level":"strict","token_from":0}
{"index":3,"type":"info","process":"nemesis","time":8,"f":"partition","value":{"cut":["n1"]}}
{"index":5,"type":"ok","process":1,"time":9,"f":"txn","value":[["r","a",[1,2]],["r","b",5]],"node":"n1","version":[4,2],"retry":1,"receipt":"x","final":true}
"#;
    let history = read(&text).unwrap();
    let mut written = Vec::new();
    history.write(&mut written).unwrap();
    assert_eq!(String::from_utf8(written).unwrap(), text);
}

#[test]
fn an_invocation_is_paired_with_its_completion() {
    let text = lines(&[
        ("invoke", 0, r#"[["r","k",null]]"#),
        ("invoke", 1, r#"[["w","k",1]]"#),
        ("ok", 0, r#"[["r","k",1]]"#),
        ("info", 1, r#"[["w","k",1]]"#),
        ("invoke", 2, r#"[["d","k",null]]"#),
    ]);
    let operations = read(&text).unwrap().operations();
    let shown: Vec<_> = operations
        .iter()
        .map(|op| {
            (op.process, op.invoke_line, op.return_line, op.micro_ops[0].to_string(), op.outcome)
        })
        .collect();
    assert_eq!(
        shown,
        [
            (0, 1, Some(3), "read 1".to_owned(), Outcome::Ok),
            (1, 2, None, "write 1".to_owned(), Outcome::Info),
            (2, 5, None, "delete".to_owned(), Outcome::Pending),
        ]
    );
}

#[test]
fn a_completion_s_word_replaces_its_invocation_s() {
    let text = r#"{"index":0,"type":"invoke","process":1,"time":7,"f":"txn","value":[["cas","a",[1,2]]],"node":"n1","level":"strict"}
{"index":1,"type":"fail","process":1,"time":9,"f":"cas-mismatch","value":[["cas","a",[1,2]]],"node":"n2","version":3}
"#;
    let operation = read(text).unwrap().operations().remove(0);
    assert_eq!(operation.outcome, Outcome::Mismatch);
    assert_eq!(operation.extras.node.as_deref(), Some("n2"));
    assert_eq!(operation.extras.level.as_deref(), Some("strict"));
    assert_eq!(operation.extras.version, Some(Version::from(3)));
}

#[test]
fn what_is_no_history_is_refused_with_its_line() {
    let (r, w, r1) = (r#"[["r","k",null]]"#, r#"[["w","k",1]]"#, r#"[["r","k",1]]"#);
    let ok = lines(&[("invoke", 0, r), ("ok", 0, r1)]);
    let cases = [
        (
            lines(&[("invoke", 0, r), ("invoke", 0, r)]),
            "line 2: process 0 still has the operation of line 1 open",
        ),
        (lines(&[("ok", 0, w)]), "line 1: process 0 has no open operation to complete"),
        (
            lines(&[("invoke", 0, w), ("ok", 0, r)]),
            "line 2: completes another operation than line 1 invoked",
        ),
        (
            lines(&[("invoke", 0, w), ("info", 0, w), ("invoke", 0, r)]),
            "line 3: process 0 ended with the unknown outcome of line 2",
        ),
        (lines(&[("invoke", 0, r1)]), "line 1: a read is invoked with null"),
        (lines(&[("invoke", 0, "[]")]), "line 1: no micro-operation"),
        (ok.clone() + &ok, "line 3: index 0 follows index 1"),
        (
            lines(&[("invoke", 0, r#"[["x","k",1]]"#)]),
            "line 1: not an event: [\"x\",\"k\",1]: `x` is no micro-operation",
        ),
        (
            lines(&[("invoke", 0, r#"[["w","k",null]]"#)]),
            "line 1: not an event: [\"w\",\"k\",null]: invalid type: null, expected i64",
        ),
        (ok.clone() + "\n", "line 3: not an event: EOF while parsing a value at line 1 column 0"),
        (
            ok.replace(r#""f":"#, r#""finl":true,"f":"#),
            "line 1: not an event: unknown field `finl`",
        ),
        (
            ok.replace(r#""process":0"#, r#""process":"nemesis""#),
            "line 1: not an event: the nemesis writes `info` only",
        ),
    ];
    for (text, expected) in cases {
        let error = read(&text).unwrap_err();
        assert!(error.to_string().starts_with(expected), "{error}\nexpected: {expected}");
        assert!(expected.starts_with(&format!("line {}:", error.line())));
    }
    let error = read("\u{0}").unwrap_err();
    assert_eq!(error.line(), 1);
}
