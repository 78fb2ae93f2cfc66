//! Published and independently computed key derivations.

use southbound::KeyMaterial;

use super::*;

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len() / 2)
        .map(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).unwrap())
        .collect()
}

fn secret(hex: &str) -> KeyMaterial {
    KeyMaterial::new(bytes(hex))
}

fn seed(nonce_i: &str, nonce_r: &str, spi_i: u64, spi_r: u64) -> Seed {
    Seed {
        nonce_i: bytes(nonce_i),
        nonce_r: bytes(nonce_r),
        spi_i,
        spi_r,
    }
}

/// A suite of AES-256-GCM with this function, as the configuration spells it.
fn suite(text: &str) -> IkeSuite {
    let ours = [text.parse::<crate::IkeProposal>().unwrap()];
    let offers = [ours[0].to_wire(1, Vec::new())];
    crate::proposal::choose_ike(&ours, &offers).unwrap().0
}

/// SK_d to SK_pr in their order.
fn stream(keys: &IkeKeys) -> Vec<u8> {
    [
        &keys.sk_d,
        &keys.sk_ai,
        &keys.sk_ar,
        &keys.sk_ei,
        &keys.sk_er,
        &keys.sk_pi,
        &keys.sk_pr,
    ]
    .iter()
    .flat_map(|key| key.expose().to_vec())
    .collect()
}

#[test]
fn nist_ikev2_sha1() {
    // CAVP, application-specific key derivation, IKEv2 with HMAC-SHA-1 (1056 bits of keying material).
    let seed = seed(
        "32b50d5f4a3763f3",
        "9206a04b26564cb1",
        0x34c9e7c188868785,
        0x3ff77d760d2b2199,
    );
    let skeyseed = first_seed(
        Prf::HmacSha1,
        &seed,
        &secret("4b2c1f971981a8ad8d0abeafabf38cf75fc8349c148142465ed9c8b516b8be52"),
    );
    assert_eq!(
        skeyseed.expose(),
        bytes("a9a7b222b59f8f48645f28a1db5b5f5d7479cba7")
    );
    // 3 * 20 + 2 * 20 + 2 * 16 = 132 bytes.
    let keys = IkeKeys::derive(&suite("aes128-sha1-modp2048"), &skeyseed, &seed);
    let material = "a14293677cc80ff8f9cc0eee30d895da9d8f405666e30ef0dfcb63c634a46002a2a63080e514a062768b76606f9fa5e9\
     92204fc5a670bde3f10d6b027113936a5c55b648a194ae587b0088d52204b702c979fa280870d2ed41efa9c549fd1119\
     8af1670b143d384bd275c5f594cf266b05ebadca855e4249520a441a81157435a7a56cc4";
    assert_eq!(stream(&keys), bytes(material));
    let new = [secret(
        "863f3c9d06efd39d2b907b97f8699e5dd5251ef64a2a176f36ee40c87d4f9330",
    )];
    assert_eq!(
        rekey_seed(&keys, &seed, &new).expose(),
        bytes("63e81194946ebd05df7df5ebf5d8750056bf1f1d")
    );
}

#[test]
fn nist_ikev2_sha256() {
    // The tests of NIST's ACVP server, IKEv2 with HMAC-SHA-256: the first 168 and 72 bytes of its material.
    let seed = seed(
        "0a58fea9c1d4fee2e74e1aad6fb02dd5f318eb127465a112be8dc3c04d5dba62eae708f9dc1b2362afd6ba4bda3cf500\
     0f4979fbcbadbcfda9291593829c4e905c21db0c2ee15175ce77a8a0dadf25c7f175bc53fd91b636a9b3c50b203de9b9\
     d6dc463dcb4048f101e26498ceaed3afbcd931394a7e099392dfff82e5d6fa85c2e8a8ab90ad363a66795dc32798847e\
     405acd87988140f973058917273a6b0bafb962c75e2b1a21e79c08beeb82168bf8b4b57f3dce867bf7862a7b8acbc21b\
     e838021913daf64340c055ed17aaf7b6e1d0ca33ae890ddbdb83f4e615aad5e3bff58c3db70bac81a0dfbabe5391fc62\
     bca4659e22a0741e01d8d06e67d9bb41",
        "e4fdfa68df6171d9eaff8b7b5ad31e7c6098d259f3397c9854cbefe7449b0864c1df16ddece8b26567560f8d59182a44\
     c19149c2d0d72606a160021ade3d23c7c6936c91a4b6bec37adf38cfc84b851c68dcee06f81306f63abbefc07e231e30\
     58c49437a557df617eac01663593d2a3e594699284c0a35eae6931492ccb2a43db72a600a3899205d681d2b76b1280e4\
     56339bb10e0c584aecfdae31c77a4c40dbcb345f782ac32835d4c220c1e97254ded6a40075dd717b00b69c86a49e8017\
     73026536ae02d58a649827f1ba67610ee936dffd11c9d5a9156631916a0a0046ec0ba42f56f2a18de83d5d71a985b0cc\
     9eec2c06b3d907ca58454419f374069d",
        0xc8de93111750e409,
        0x32d51b33508997fa,
    );
    let skeyseed = first_seed(
        Prf::HmacSha256,
        &seed,
        &secret("9d469de41b4739c7dd01f19aa94f17e48150ae9dbede94832142db19"),
    );
    assert_eq!(
        skeyseed.expose(),
        bytes("eec13ac67c2e072abb684ab4e7b6ce3e7f400af8b96bed48e113497ed337f8d4")
    );
    let keys = IkeKeys::derive(&suite("aes256gcm16-prfsha256-x25519"), &skeyseed, &seed);
    let material = "bc83518f63b762874ac57947cdfae33a8d9724df0b83ee4b6df38c23fc2ad829f4d70b5a68dd1f5a52416f09758638ae\
     df919c09a17c5298cdb703bb75b1005cba0109739aaa4efd2fe7534c95ad05e546e4419931270eddcab68ac1589d7fde\
     47f5b9e8d5b614cb24ec3caf515497a9e99ee6f1b318ff153b539ef071dcaff9b41945dcb780700d69e5dc888a91de19\
     5c52825badfd0ab4c33cec71ab5c2b4badefe5455455ce5d";
    assert_eq!(stream(&keys), bytes(material));
    let both = |shared: &[KeyMaterial]| {
        let (forth, back) = keys.child(&seed.nonce_i, &seed.nonce_r, shared, 36);
        [forth.expose(), back.expose()].concat()
    };
    let new = [secret("c2987b0767006c3b9aea491bfed1646a3d7194639492b8d45b23b383")];
    let plain = "c725012285d56e53244a9baaaf95abfca543708d333a3f3a86ba660e00edd4d489bcd631819fda0413382edd9f53d1ed\
     718e056c2ad91d38de90f06cd434de70141d051c021e7ddd";
    assert_eq!(both(&[]), bytes(plain));
    let forward_secret = "140a1f2a3c94318ece6edfa8c63f37d8d45982de8b6cbfe34011150db0253e34de3796d4aa579954a0bbf234794eb6e7\
     ece2a8f91100f5507df4ee8e66c7813d4c0ff64d484a3494";
    assert_eq!(both(&new), bytes(forward_secret));
    assert_eq!(
        rekey_seed(&keys, &seed, &new).expose(),
        bytes("05f796c8df322a7e33283ae5fa2f376d8d5efa0ac3745fc548e430031424c121")
    );
}

/// What `hmac` of Python's standard library makes of the same inputs: nonces 0 to 31 and 32 to 63, SPIs 0102030405060708
/// and 1112131415161718, shared secrets of 32 bytes a5 and 32 bytes 5a.
struct Independent {
    suite: &'static str,
    skeyseed: &'static str,
    /// SHA-256 of all keys.
    keys: &'static str,
    /// After an additional key exchange (RFC 9370 section 2.2.2), and SHA-256 of all keys of it.
    additional: (&'static str, &'static str),
    /// Of a renewal with two key exchanges (RFC 9370 section 2.2.4).
    rekey: &'static str,
    /// A Child SA with two key exchanges.
    child: &'static str,
    /// SK_d with a post-quantum preshared key (RFC 8784 section 3).
    with_ppk: &'static str,
}

const INDEPENDENT: [Independent; 2] = [
    Independent {
        suite: "aes256gcm16-prfsha384-x25519",
        skeyseed: "e139473dd870fb7be4b516dae3c8ff91c877b0a988058196bab54900caa9b822a6fa66f1b63cfb96ff24e8472b79d10d",
        keys: "d5ede7747027f39a35530ba070c856ab768a0503a6bedd37c19f65899a984f43",
        additional: (
            "ceaf326a2cdf717251ce8905b9f2b5ecf5958dc6858b0004aa70541ad0ee2063c85f4b5e3177ed0023c149f6acadaaa5",
            "d81d34a322938bbc7d56cec47866e35d007bf6cd0799b29926829dde823acc24",
        ),
        rekey: "408993d388bf055538f8468ed748bc0fa16e5dee8835e2eab1581b4be81a48becccd90d72d8cb53d18c67a3d35874abc",
        child: "39004445124b0839ab9f7c596dde1e5730e0a31a76c9f96bbdd9ff35c0c0bd5e4a64b99a39085a35f527844803b7f6e3\
     c674990bc6c96a16e4762aeed2e108a1625b2077354eb836",
        with_ppk: "5d6ea60c438d5986e0f14c4454a9ff27c1d77e234d46e621a10f4e6a7e85532df2d3ff2000771eafa2a1c016745c19d4",
    },
    Independent {
        suite: "aes256gcm16-prfsha512-x25519",
        skeyseed: "9b0e96972f2168ed3e1562284fcf5ebb6cb7c1fa93c1e40bae258a20477c19dcf8988330e194310bc9df7ea6016bc158\
     ceb403f2c3bf871d97cca4f617c9c4f9",
        keys: "5cde5bb290cf2e281d4884361b322b873da55cde42812ea73e194f51e99cf0b1",
        additional: (
            "e07254a75e7265f3803dbba5b3157915260c230435246b0721ce1d3f48a437211f44e53ed4e84e13965b594348acaead\
     95b00b9b3afa793cbd39c1aed2836669",
            "5d287d6414cb86f7f81b6d44725a5e1dc2abc5bd0e568bcb46be91a86a576673",
        ),
        rekey: "e4dee6e74a78053638a9e7fcdcb06d013900a59e2df78cbb51f08f478501f012f994ec211d9582ec1265f583d04c875c\
     e83a7c2be89f02baf4a7fe35b6b64b50",
        child: "2c268204b772f426f7254a9502c51e1b632ec6ab5b85302ed387d1ba82bee9a342fc1de74655ce7a3394b7dbf17e314e\
     0b1b49d5be379ee5c65c315f0d607e08ef3fa9b5bf32de22",
        with_ppk: "c547a25b158a4131f86aef41f7e068de3d7e4ffb91cf39358ab274ed764e1854030e9ffe4348cb487787b0e222ef23ad\
     37424902d2b1fbee916ce5ad2f902871",
    },
];

#[test]
fn independent_values_with_additional_exchanges_and_ppk() {
    let digest = |keys: &IkeKeys| {
        aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &stream(keys))
            .as_ref()
            .to_vec()
    };
    for known in INDEPENDENT {
        let suite = suite(known.suite);
        let seed = Seed {
            nonce_i: (0..32).collect(),
            nonce_r: (32..64).collect(),
            spi_i: 0x0102_0304_0506_0708,
            spi_r: 0x1112_1314_1516_1718,
        };
        let shared = [0xa5, 0x5a].map(|byte| KeyMaterial::new(vec![byte; 32]));
        let skeyseed = first_seed(suite.prf, &seed, &shared[0]);
        assert_eq!(skeyseed.expose(), bytes(known.skeyseed));
        let mut keys = IkeKeys::derive(&suite, &skeyseed, &seed);
        assert_eq!(digest(&keys), bytes(known.keys));
        let additional = additional_seed(suite.prf, &keys.sk_d, &seed, &shared[1]);
        assert_eq!(additional.expose(), bytes(known.additional.0));
        let hybrid = IkeKeys::derive(&suite, &additional, &seed);
        assert_eq!(digest(&hybrid), bytes(known.additional.1));
        assert_eq!(rekey_seed(&keys, &seed, &shared).expose(), bytes(known.rekey));
        let (forth, back) = keys.child(&seed.nonce_i, &seed.nonce_r, &shared, 36);
        assert_eq!([forth.expose(), back.expose()].concat(), bytes(known.child));
        keys.mix_ppk(&KeyMaterial::new(
            b"a post-quantum preshared key of 32 bytes".to_vec(),
        ));
        assert_eq!(keys.sk_d.expose(), bytes(known.with_ppk));
    }
}
