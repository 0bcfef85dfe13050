//! `moe-data build`, `inspect` and `verify` as users run them: through the binary.

mod generated;
mod scripted;
mod support;

/// Files for Megatron-LM, NumPy and PyTorch.
mod export;
/// Texts for other programs.
mod export_text;
/// Tokens of other programs.
mod import;
/// What `where`, `diff` and `verify` say about a plan.
mod plans;

/// Builds against earlier builds.
mod against;
/// Bad input: quarantine, exit codes, a ledger that balances.
mod bad_input;
/// What `diff` says about two builds.
mod changes;
/// Conversations, from the record to the loss mask of a sample.
mod chat;
/// Classifiers: training, scores, thresholds and buckets.
mod classifier;
/// Rules that rewrite texts, read lists, and find languages, in whole builds.
mod cleaning;
/// Text that is cut out of documents.
mod cuts;
/// Shards that are not as they were written.
mod damage;
/// Text of evaluation sets, planted and found.
mod decontaminate;
/// The same bytes for any threads, split, format, interruption.
mod determinism;
/// Mixtures in which every text of a family is shown once before any is shown again, parts of passes, and takedowns of families.
mod each_once;
/// The rule that CONTRIBUTING.md shows.
mod example_rule;
/// Plans that are extended: the past stays, the future continues from it.
mod extend;
/// Drops, tags and measurements of filters.
mod filters;
/// Folders of mixed and of many small files, the words of rules, the keys of files: what users see first.
mod first_hour;
/// Other people's folders and files, names that lead elsewhere, leftovers of kills, and output that cannot be
/// written.
mod folders;
/// What a dry run predicts, compared with the result.
mod forecast;
/// Archives, tables, almost-JSON, encodings, odd files in folders: what is read, and what is reported.
mod formats;
/// Documents that a language model grades.
mod grade;
/// What a second build with a changed recipe repeats, and what not.
mod incremental;
/// What a plan must not show, and figures that agree with what it shows.
mod limits;
/// Peak memory of deduplication, measured.
mod memory;
/// Quality, language, tags, date and score, from the record to the shard.
mod metadata;
/// Fuzzy deduplication: determinism, kills, survivors, guards, families.
mod minhash;
/// Pools, phases, caps, curves and proxies: the plan shows what the mixture asks for.
mod mixture;
/// Near-duplicates that stay in one family, through the plan.
mod near_families;
/// The invariants of a plan: passes, gaps, shares, packing, resume at any sample.
mod plan;
/// What `why` and `dups` say.
mod provenance;
/// WARC, web pages, compressed streams, from the file to the ledger.
mod readers;
/// What is said about wrong recipes and flags, before any work.
mod recipe;
/// Rephrasing through a scripted server: asked once, judged again, used in builds, killed.
mod rephrase;
/// Variants that other programs wrote.
mod rephrase_import;
/// The page of a build and its plan.
mod report;
/// The external sort within its memory limit.
mod sort;
/// All texts of a family in one document, and orders of passes.
mod stitched;
/// Output to the terminal, and the position of flags.
mod terminal;
/// Tokenizers other than byte-level BPE: special strings, unknown and changed text.
mod tokenizers;
/// What `verify` and `inspect` say.
mod verify;
/// The tokenizer verbs, and what a recipe says about encoding.
mod vocabulary;
