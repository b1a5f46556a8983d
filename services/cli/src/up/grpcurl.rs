//! Lines to paste into a shell.

use crate::address::Address;

/// How to list the services, generate with `model` and ask for health at `address`.
pub(super) fn lines(address: &Address, model: &str) -> Vec<String> {
    let (transport, target) = target(address);
    let body = serde_json::json!({
        "model": model,
        "text": "Once upon a time",
        "stopping": { "max_tokens": 64 },
    });
    let body = quoted(&body.to_string());
    vec![
        format!("grpcurl {transport} {target} list"),
        format!(
            "grpcurl {transport} -d {body} {target} hearth.inference.v1.InferenceService/Generate"
        ),
        format!("grpcurl {transport} {target} grpc.health.v1.Health/Check"),
        generate_line(address, model),
    ]
}

/// Flags and target: `("-plaintext", "127.0.0.1:50051")`.
fn target(address: &Address) -> (&'static str, String) {
    match reachable(address) {
        Address::Tcp(authority) => ("-plaintext", quoted(&authority)),
        Address::Unix(path) => ("-plaintext -unix", quoted(&path.display().to_string())),
    }
}

fn generate_line(address: &Address, model: &str) -> String {
    let reachable = reachable(address);
    let server = if reachable == Address::Tcp("127.0.0.1:50051".to_owned()) {
        String::new()
    } else {
        format!(" --server {}", quoted(&reachable.to_string()))
    };
    format!(
        "hearth generate{server} -m {} 'Once upon a time'",
        quoted(model)
    )
}

/// A service that listens on every interface is reached through this machine's own.
fn reachable(address: &Address) -> Address {
    match address {
        Address::Tcp(authority) => {
            let local = authority
                .strip_prefix("0.0.0.0:")
                .map(|port| format!("127.0.0.1:{port}"));
            let local = local.or_else(|| {
                authority
                    .strip_prefix("[::]:")
                    .map(|port| format!("[::1]:{port}"))
            });
            Address::Tcp(local.unwrap_or_else(|| authority.clone()))
        }
        Address::Unix(path) => Address::Unix(path.clone()),
    }
}

/// `text` as one word of a POSIX shell.
fn quoted(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:,@%+=".contains(&byte);
    if !text.is_empty() && text.bytes().all(plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_a_shell() {
        for (text, expected) in [
            ("a/b-1.0_x", "a/b-1.0_x"),
            ("", "''"),
            ("two words", "'two words'"),
            ("it's", r"'it'\''s'"),
            ("$(rm)", "'$(rm)'"),
            ("[::1]:1", "'[::1]:1'"),
        ] {
            assert_eq!(quoted(text), expected);
        }
    }

    #[test]
    fn the_usual_address() {
        assert_eq!(
            lines(&Address::Tcp("127.0.0.1:50051".into()), "demo"),
            [
                "grpcurl -plaintext 127.0.0.1:50051 list",
                r#"grpcurl -plaintext -d '{"model":"demo","stopping":{"max_tokens":64},"text":"Once upon a time"}' 127.0.0.1:50051 hearth.inference.v1.InferenceService/Generate"#,
                "grpcurl -plaintext 127.0.0.1:50051 grpc.health.v1.Health/Check",
                "hearth generate -m demo 'Once upon a time'",
            ]
        );
    }

    #[test]
    fn sockets_and_wildcards() {
        let generate = |address: Address| lines(&address, "m").pop();
        let lines_of = |address: Address| lines(&address, "m").swap_remove(0);
        assert_eq!(
            lines_of(Address::Unix("/run/a b".into())),
            "grpcurl -plaintext -unix '/run/a b' list"
        );
        assert_eq!(
            lines_of(Address::Tcp("0.0.0.0:7".into())),
            "grpcurl -plaintext 127.0.0.1:7 list"
        );
        assert_eq!(
            lines_of(Address::Tcp("[::]:7".into())),
            "grpcurl -plaintext '[::1]:7' list"
        );
        assert_eq!(
            generate(Address::Unix("/run/h".into())).as_deref(),
            Some("hearth generate --server unix:/run/h -m m 'Once upon a time'")
        );
    }
}
