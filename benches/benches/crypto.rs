//! The bare primitives, through the engine that everything else uses.
#![expect(clippy::unwrap_used, reason = "a benchmark may panic")]

use std::hint::black_box;
use std::sync::Arc;

use criterion::BatchSize;
use criterion::BenchmarkId;
use criterion::Criterion;
use criterion::Throughput;
use mesh_crypto::AeadAlgorithm;
use mesh_crypto::RsaBits;
use mesh_crypto::RsaKeyPair;
use mesh_crypto::SystemRandom;
use mesh_crypto::aead::OpeningKey;
use mesh_crypto::aead::SealingKey;
use mesh_crypto::engine::aws_lc;

fn main() {
    let mut criterion = benches::criterion();
    symmetric(&mut criterion);
    asymmetric(&mut criterion);
    criterion.final_summary();
}

fn symmetric(criterion: &mut Criterion) {
    let engine = aws_lc();
    let aead = |key| engine.aead_key(AeadAlgorithm::Aes256Gcm, key).unwrap();
    let opening = OpeningKey::new(aead(&KEY), IV);
    let mac = engine.mac_key(&KEY);
    let mut group = criterion.benchmark_group("crypto");
    for size in benches::SIZES {
        group.throughput(Throughput::Bytes(size.try_into().unwrap()));
        let mut text = vec![0x5a; size];
        // A key of its own for each size: one key seals only so much.
        let sealing = Arc::new(SealingKey::counting(aead(&KEY), IV));
        let mut stream = sealing.next_stream().unwrap();
        let number = stream.number();
        let tag = stream.seal(&AAD, &mut text).unwrap();
        let sealed = text.clone();
        group.bench_function(BenchmarkId::new("aes256gcm_seal", size), |b| {
            b.iter(|| stream.seal(black_box(&AAD), black_box(&mut text)).unwrap());
        });
        group.bench_function(BenchmarkId::new("aes256gcm_open", size), |b| {
            b.iter_batched(
                || sealed.clone(),
                |mut text| {
                    opening.open((number, 0), &AAD, &mut text, &tag).unwrap();
                    text
                },
                BatchSize::LargeInput,
            );
        });
        group.bench_function(BenchmarkId::new("hmac_sha256", size), |b| {
            b.iter(|| mac.sign(&[black_box(&text)]));
        });
    }
    group.finish();
}

fn asymmetric(criterion: &mut Criterion) {
    let engine = aws_lc();
    let random = SystemRandom::new();
    let pair = RsaKeyPair::generate(&*engine, RsaBits::B4096).unwrap();
    let wrapped = pair.public().encrypt_oaep(&KEY, b"bench", &random).unwrap();
    let signature = pair.sign_pss(b"message", &random).unwrap();
    let peer = *engine.x25519_key(&random).unwrap().share();
    let mut group = criterion.benchmark_group("crypto");
    group.bench_function("rsa4096_sign_pss", |b| {
        b.iter(|| pair.sign_pss(black_box(b"message"), &random).unwrap());
    });
    group.bench_function("rsa4096_decrypt_oaep", |b| {
        b.iter(|| pair.decrypt_oaep(black_box(&wrapped), b"bench").unwrap());
    });
    group.bench_function("rsa4096_verify_pss", |b| {
        b.iter(|| {
            pair.public()
                .verify_pss(b"message", black_box(&signature))
                .unwrap();
        });
    });
    group.bench_function("rsa4096_encrypt_oaep", |b| {
        b.iter(|| {
            pair.public()
                .encrypt_oaep(black_box(&KEY), b"bench", &random)
                .unwrap()
        });
    });
    group.bench_function("x25519_new_and_agree", |b| {
        b.iter(|| {
            engine
                .x25519_key(&random)
                .unwrap()
                .agree(black_box(&peer))
                .unwrap()
        });
    });
    group.finish();
}

const KEY: [u8; 32] = [7; 32];
const IV: [u8; 12] = [9; 12];
/// As long as a session's: a record's header and the hash of the route.
const AAD: [u8; 64] = [1; 64];
