use std::fs;

use moe_shards::{Manifest, Plan};

use crate::support::{Scratch, lines, small_recipe};

fn planned() -> Scratch {
    let scratch = Scratch::new();
    scratch.write("a.jsonl", lines(0..60));
    scratch.write("r.toml", small_recipe("\"a.jsonl\"", ""));
    scratch.ok(&["build", "--recipe", "r.toml"]);
    scratch.ok(&["mix", "--epochs", "2", "--seq-len", "64"]);
    scratch
}

/// Tokens on a failing disk: `export` and `explain` used to exit with 0.
#[test]
fn commands_that_read_tokens_refuse_damaged_shards_naming_shard_and_document() {
    for (token, said) in [(&[0xff, 0xff], "outside the vocabulary of 300"), (&[5, 0], "checksum")] {
        let scratch = planned();
        let plan = Plan::open(&scratch.path("out")).unwrap();
        let piece = plan.sample(3).unwrap().pieces[0];
        let shard = plan.shards()[piece.shard as usize];
        let (start, id) = (shard.span(piece.doc).unwrap().0, shard.id(piece.doc).unwrap().to_owned());
        let bin = shard.path().with_extension("bin");
        drop(plan);
        let mut bytes = fs::read(&bin).unwrap();
        let at = 2 * start as usize + 2;
        assert_ne!(&bytes[at..at + 2], token);
        bytes[at..at + 2].copy_from_slice(token);
        fs::remove_file(&bin).unwrap();
        fs::write(&bin, bytes).unwrap();
        let listing = |folder: &str| fs::read_dir(scratch.path(folder)).map_or(0, |entries| entries.count());
        let before = (listing("out"), listing("out/shards"));
        for args in [
            &["export", "--megatron"][..],
            &["export", "--npy", "--to", "to"],
            &["export", "--plan-npy", "--rows", "--to", "to"],
            &["explain", "3"],
            &["where", &id],
            &["mix", "--epochs", "3", "--seq-len", "64", "--force"],
            &["mix", "--extend", "--from", "2", "--epochs", "3"],
        ] {
            let found = scratch.fail(args, 3).err;
            for part in ["a-v0-00000", &format!("{id}`"), said] {
                assert!(found.contains(part), "{args:?}: {part}: {found}");
            }
        }
        assert_eq!((listing("out"), listing("out/shards"), listing("to")), (before.0, before.1, 0));
    }
}

/// A changed index used to be detected only by its section checksums, which whoever changes it can correct.
#[test]
fn an_index_that_is_not_the_manifests_is_refused() {
    let scratch = planned();
    let manifest = Manifest::read(&scratch.path("out")).unwrap();
    let mdx = Manifest::mdx_path(&scratch.path("out"), &manifest.shards[0].name);
    let good = fs::read(&mdx).unwrap();
    // Padding between the header and the first section belongs to no section.
    let mut bytes = good.clone();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    for (bytes, said) in [(bytes, "section `sum` is damaged"), (good[..good.len() - 8].to_vec(), "file size")]
    {
        fs::remove_file(&mdx).unwrap();
        fs::write(&mdx, bytes).unwrap();
        for args in [&["explain", "0"][..], &["export", "--megatron"], &["mix", "--epochs", "3", "--force"]] {
            let found = scratch.fail(args, 3).err;
            assert!(found.contains("a-v0-00000.mdx") && found.contains(said), "{args:?}: {found}");
        }
    }
}
