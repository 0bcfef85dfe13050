use super::*;

fn source(paths: &str) -> SourceConfig {
    SourceConfig { name: "a".into(), paths: vec![paths.into()], ..SourceConfig::default() }
}

#[test]
fn identity_ignores_paths_and_the_limit_but_nothing_else() {
    let recipe = Recipe::built_in(vec![source("here")]);
    let mut moved = Recipe::built_in(vec![source("there")]);
    moved.limits.max_bad_fraction = 0.5;
    moved.tokenizer.engine = EngineChoice::Reference;
    moved.tokenizer.verify_every = 7;
    moved.limits.slice_bytes = ByteSize(1000);
    assert_eq!(recipe.identity(None, &[]), moved.identity(None, &[]));
    moved.source[0].text = "body".into();
    assert_ne!(recipe.identity(None, &[]), moved.identity(None, &[]));
    moved = recipe.clone();
    moved.dedup.against = vec!["there".to_owned()];
    assert_eq!(recipe.identity(None, &[]), moved.identity(None, &[]));
    let (a, b) = (Hash::of(b"a"), Hash::of(b"b"));
    assert_ne!(recipe.identity(None, &[]), recipe.identity(None, &[a]));
    assert_eq!(recipe.identity(None, &[a, b]), recipe.identity(None, &[b, a]));
    assert_ne!(recipe.identity(None, &[]), recipe.identity(Some(Hash::of(b"tokenizer")), &[]));
}

#[test]
fn the_written_recipe_reads_back_as_the_same() {
    let recipe = Recipe::built_in(vec![source("here")]);
    let text = recipe.to_toml().unwrap();
    assert_eq!(decode::decode(&text, std::path::Path::new("lock.toml")).unwrap(), recipe);
}

#[test]
fn a_recipe_without_filters_can_be_written() {
    let recipe = Recipe { filter: Vec::new(), ..Recipe::built_in(vec![source("here")]) };
    let text = recipe.to_toml().unwrap();
    assert_eq!(decode::decode(&text, std::path::Path::new("lock.toml")).unwrap(), recipe);
}

#[test]
fn source_rules() {
    let keys = |s: &SourceConfig| s.check().into_iter().map(|(key, _)| key).collect::<Vec<_>>();
    assert_eq!(keys(&SourceConfig::default()), ["name", "paths"]);
    assert_eq!(keys(&SourceConfig { name: "A b".into(), ..source("x") }), ["name"]);
    assert_eq!(keys(&SourceConfig { variant: Some("v".into()), ..source("x") }), ["variant", "variants"]);
    let twice = vec!["x".to_owned(), "x".to_owned()];
    let both = (Some("f".to_owned()), Some("v".to_owned()));
    assert_eq!(
        keys(&SourceConfig { family: both.0, variant: both.1, variants: twice, ..source("x") }),
        ["variants"]
    );
    let edges = |quality: Option<&str>, quality_edges: &[f64]| SourceConfig {
        quality: quality.map(str::to_owned),
        quality_edges: quality_edges.to_vec(),
        ..source("x")
    };
    assert_eq!(keys(&edges(None, &[1.0])), ["quality_edges"]);
    assert_eq!(keys(&edges(Some("q"), &[1.0, 1.0])), ["quality_edges"]);
    assert_eq!(keys(&edges(Some("q"), &[0.5, 1.0])), [""; 0]);
}
