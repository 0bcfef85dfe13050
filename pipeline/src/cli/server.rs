//! Flags of the verbs that ask a language model: types only.

use clap::Args;
use moe_data::commands::server::ServerArgs;

/// How a server is asked.
#[derive(Debug, Args)]
pub struct ServerFlags {
    /// Address of an OpenAI-compatible server, such as http://127.0.0.1:8000/v1
    #[arg(long, value_name = "URL")]
    pub base_url: Option<String>,
    /// Name of the environment variable that holds the API key
    #[arg(long, value_name = "NAME")]
    pub api_key_env: Option<String>,
    /// Most requests in flight; the client finds how many the server handles best
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..))]
    pub concurrency: u32,
    /// Seconds for one request
    #[arg(long, value_name = "SECS", default_value_t = 600, value_parser = clap::value_parser!(u64).range(1..))]
    pub deadline: u64,
    /// Ask again the questions that the server could not answer
    #[arg(long)]
    pub retry_poisoned: bool,
}

impl ServerFlags {
    /// The server, if one is named.
    pub fn into_args(self) -> Option<ServerArgs> {
        let ServerFlags { base_url, api_key_env, concurrency, deadline, retry_poisoned } = self;
        base_url.map(|base_url| ServerArgs {
            base_url,
            api_key_env,
            concurrency,
            deadline_secs: deadline,
            retry_poisoned,
        })
    }
}
