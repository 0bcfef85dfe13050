use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

const FOX: &str = "the quick brown fox jumps over the lazy dog";

fn config(profile: Profile) -> SketchConfig {
    SketchConfig { profile, ngram: 5, bands: 14, rows: 8, seed: 1 }
}

fn numbers(text: &str) -> Vec<u64> {
    text.split(' ').map(|number| number.parse().unwrap()).collect()
}

/// First and last band of the signature that the Python package gives.
fn check_datatrove(profile: Profile, text: &str, first: &str, last: &str) {
    let mut sketcher = Sketcher::new(&config(profile));
    let signature = sketcher.datatrove_signature(text).unwrap();
    assert_eq!(signature[..8], numbers(first));
    assert_eq!(signature[104..], numbers(last));
}

#[test]
fn signatures_are_those_of_datatrove() {
    check_datatrove(
        Profile::Datatrove,
        FOX,
        "85330943174081874 663359892825767826 302227827184868053 34440879854629237 1270900061947546662 117899488208280896 922286648869847700 204404170303891102",
        "138080280408424662 212222752476155101 333063281871745314 149073857945855951 1765945916311590 714816410343323786 688415039225623713 3963570588256049",
    );
    check_datatrove(
        Profile::Datatrove,
        "The Quick brown fox, jumps over 12,345.67 lazy dogs — naïve café! Ünïcode “quotes” it's Monday; don't stop.",
        "85330943174081874 96862829258159972 14282300826170508 221035308297289227 177119301976637794 202691306591488381 30632794389573660 557587844010039116",
        "21106686648425518 78935284176070586 138638230965258318 181247920733337064 1765945916311590 37560918596255670 37664580894905446 91143897827155801",
    );
    check_datatrove(
        Profile::FinewebV1,
        FOX,
        "585594454516184072 284080765670708113 594234408324153881 226360113463360020 42312182183823545 295150809832830541 316606424307206655 439255022718586444",
        "164139703210280404 29074511532028102 126148420424728747 770718497917940458 126167845672318228 404162727557050195 306993506350509109 800584869340422436",
    );
}

#[test]
fn shingles_are_those_of_datatrove() {
    let xxh64 = "7797000677988824208 4793414983259776074 7369512836458661087 13961012810162701268 15736776954345750141";
    let sha1 = "12313522834835307089 13802602654544986703 6350799717277693736 10823048585179756349 13679420430192371655";
    for (profile, expected) in [(Profile::Datatrove, xxh64), (Profile::FinewebV1, sha1)] {
        assert_eq!(Sketcher::new(&config(profile)).shingles(FOX), numbers(expected));
    }
}

#[test]
fn texts_below_the_shingle_length_have_no_keys() {
    for profile in [Profile::Native, Profile::Datatrove, Profile::FinewebV1] {
        let mut sketcher = Sketcher::new(&config(profile));
        let mut keys = Vec::new();
        assert!(!sketcher.keys("only four words here", &mut keys));
        assert!(keys.is_empty());
        assert!(sketcher.keys("but here are five words", &mut keys));
        assert_eq!(keys.iter().collect::<BTreeSet<_>>().len(), 14);
    }
}

/// A text of `n` words; those below `shared` are in every text.
fn text(n: usize, shared: usize, which: u64) -> String {
    let word = |i: usize| if i < shared { format!("w{i}") } else { format!("x{which}y{i}") };
    (0..n).map(word).collect::<Vec<_>>().join(" ")
}

/// With words as shingles, texts that share s of n words each have J = s / (2n - s).
fn agreement(n: usize, shared: usize) -> (f64, f64, f64) {
    let (n_pairs, bands, rows) = (250, 14, 8);
    let (mut equal, mut candidates) = (0, 0);
    for pair in 0..n_pairs {
        // Each pair has its own permutations and its own texts.
        let mut native = native::Native::new(1, bands * rows, pair);
        let mut signature = |which| {
            let mut shingles = Vec::new();
            native.shingles(&text(n, shared, which), &mut shingles);
            native.signature(&shingles).to_vec()
        };
        let (a, b) = (signature(2 * pair), signature(2 * pair + 1));
        equal += a.iter().zip(&b).filter(|(a, b)| a == b).count();
        candidates += usize::from(a.chunks(rows).zip(b.chunks(rows)).any(|(a, b)| a == b));
    }
    let jaccard = shared as f64 / (2 * n - shared) as f64;
    let values = n_pairs as f64 * (bands * rows) as f64;
    (jaccard, equal as f64 / values, candidates as f64 / n_pairs as f64)
}

#[test]
fn agreement_is_the_jaccard_index() {
    for (n, shared) in [(400, 320), (400, 100), (60, 50), (2000, 1700), (10, 8)] {
        let (jaccard, measured, _) = agreement(n, shared);
        // 28,000 values of 250 pairs; the pairs share nothing, so the deviation of the mean is below
        // sqrt(J (1 - J) / 250), and for independent permutations a tenth of that.
        let deviation = (jaccard * (1.0 - jaccard) / 28_000.0).sqrt();
        assert!((measured - jaccard).abs() < 5.0 * deviation, "J {jaccard}, measured {measured}");
    }
}

#[test]
fn bands_follow_the_s_curve() {
    for (n, shared) in [(300, 264), (300, 247), (300, 270), (300, 220)] {
        let (jaccard, _, measured) = agreement(n, shared);
        let expected = candidate_probability(jaccard, 14, 8);
        let deviation = (expected * (1.0 - expected) / 250.0).sqrt();
        assert!(
            (measured - expected).abs() < 4.0 * deviation + 0.01,
            "J {jaccard}: {measured}, not {expected}"
        );
    }
    assert!((candidate_probability(0.8, 14, 8) - 0.92355).abs() < 1e-4);
    assert_eq!(candidate_probability(1.0, 14, 8), 1.0);
}

#[test]
fn the_index_of_two_sets() {
    assert_eq!(overlap(&[1, 3, 5, 7], &[3, 4, 5]), 2);
    assert_eq!(overlap(&[], &[1]), 0);
    assert_eq!(jaccard(2, 4, 3), 0.4);
    assert_eq!(jaccard(0, 0, 0), 0.0);
}

proptest! {
    #[test]
    fn any_text_has_sorted_sets_and_the_same_keys_twice(text in "\\PC{0,200}") {
        for profile in [Profile::Native, Profile::Datatrove, Profile::FinewebV1] {
            let mut sketcher = Sketcher::new(&config(profile));
            let set = sketcher.set(&text).to_vec();
            prop_assert!(set.is_sorted());
            let (mut once, mut twice) = (Vec::new(), Vec::new());
            let has_keys = sketcher.keys(&text, &mut once);
            sketcher.keys("something else in between is here", &mut Vec::new());
            prop_assert_eq!(sketcher.keys(&text, &mut twice), has_keys);
            prop_assert_eq!(&once, &twice);
            prop_assert_eq!(once.len(), if set.is_empty() { 0 } else { 14 });
        }
    }

    #[test]
    fn overlap_is_the_size_of_the_intersection(a: BTreeSet<u8>, b: BTreeSet<u8>) {
        let list = |set: &BTreeSet<u8>| set.iter().map(|&x| u64::from(x)).collect::<Vec<_>>();
        prop_assert_eq!(overlap(&list(&a), &list(&b)), a.intersection(&b).count());
    }
}
