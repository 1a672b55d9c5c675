# What one does here, by name. Every recipe is a script that runs without `just` as well.

# Show the recipes
default:
    @just --list

# Bring Posthorn up on this machine
up:
    ./deploy/local/up

# Stop it (`just down --erase` forgets its data as well)
down *arguments:
    ./deploy/local/down {{ arguments }}

# Run every test; arguments go to `cargo test`
test *arguments:
    ./deploy/local/test -- {{ arguments }}

# Run the acceptance tests only
acceptance:
    ./deploy/local/test --only acceptance

# Kill and hinder a whole Posthorn under load, and compare three ledgers (`just chaos --seconds 300 --seed 7`)
chaos *arguments:
    ./deploy/local/chaos {{ arguments }}

# Put the contract to the dispatcher, with so many random cases for each operation
contract examples="100":
    ./deploy/local/contract-test {{ examples }}

# Run all that has to hold before a change lands
ci:
    ./.ci/run

# Fuzz the parsers of core, each for so many seconds (installs cargo-fuzz)
fuzz seconds="60":
    ./crates/core/fuzz/run {{ seconds }}

# Format the code
fmt:
    cargo fmt --all

# Lint the code, warnings denied
clippy:
    cargo clippy --workspace --all-targets --locked -- -D warnings

# Check the dependencies (needs cargo-deny)
deny:
    cargo deny --locked check --allow unused-wrapper bans licenses sources
