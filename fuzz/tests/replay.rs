//! Every file of every corpus, through the same functions as libFuzzer calls, without libFuzzer.

use std::fs;
use std::path::Path;

/// One test for each target, and one that none was forgotten.
macro_rules! replays {
    ($($target:ident: $corpus:literal,)*) => {
        $(
            #[test]
            fn $target() {
                replay($corpus, mesh_fuzz::$target);
            }
        )*

        #[test]
        fn no_target_is_forgotten() {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz_targets");
            for entry in fs::read_dir(folder).unwrap() {
                let name = entry.unwrap().file_name().into_string().unwrap();
                let corpus = format!("corpus/{}", name.trim_end_matches(".rs"));
                assert!([$($corpus),*].contains(&corpus.as_str()), "{corpus}");
            }
        }
    };
}

replays! {
    cache: "corpus/cache",
    condition: "corpus/condition",
    consul_health: "corpus/consul_health",
    cookie: "corpus/cookie",
    dns_answer: "corpus/dns_answer",
    encrypted_key: "corpus/encrypted_key",
    envelope: "corpus/envelope",
    envelope_header: "corpus/envelope_header",
    etcd_value: "corpus/etcd_value",
    fingerprint: "corpus/fingerprint",
    first_message: "corpus/first_message",
    first_message_inner: "corpus/first_message_inner",
    framing: "corpus/framing",
    grpc_frame: "corpus/grpc_frame",
    key_offer: "corpus/key_offer",
    key_set: "corpus/key_set",
    key_store_names: "corpus/key_store_names",
    policy: "corpus/policy",
    private_key: "corpus/private_key",
    public_key_pem: "corpus/public_key_pem",
    rate_limit: "corpus/rate_limit",
    record: "corpus/record",
    reply: "corpus/reply",
    resumption: "corpus/resumption",
    resumption_reply: "corpus/resumption_reply",
    route: "corpus/route",
    sealed_head: "corpus/sealed_head",
    service_file: "corpus/service_file",
    spki: "corpus/spki",
    xds_assignment: "corpus/xds_assignment",
    xds_stream: "corpus/xds_stream",
}

fn replay(corpus: &str, target: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(corpus);
    let mut count = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        println!("{}", path.display());
        target(&fs::read(&path).unwrap());
        count += 1;
    }
    assert!(count > 0, "{corpus} is empty");
    // And what every corpus should begin with.
    target(&[]);
    target(&[0]);
}
