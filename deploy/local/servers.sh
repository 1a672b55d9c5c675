# shellcheck shell=bash
# PostgreSQL and RabbitMQ of our own: data under DIR, ports of their own, on 127.0.0.1 only. Sourced
# by lib.sh; the system's instances are neither used nor touched.
#
# `start_postgres` and `start_rabbitmq` mean "see to it that it runs": a healthy server is left
# alone; one that is down, does not answer, or was started with other settings is started anew.
#
# PostgreSQL refuses to run as root, and the broker has no business there. So when we are root, each
# server runs as the user that its package brought (`postgres`, `rabbitmq`), otherwise as ourselves.

# Generous: a first start, on a small machine, while something else compiles.
readonly SERVER_START_SECONDS=120

server_user() { if ((EUID == 0)); then echo "$1"; else id -un; fi; }

as_user() {
    local user=$1
    shift
    if [[ $user == "$(id -un)" ]]; then
        "$@"
    else
        setpriv --reuid="$user" --regid="$user" --init-groups "$@"
    fi
}

# launch_server DIR NAME FINGERPRINT USER [VARIABLE=VALUE...] PROGRAM...: with a bare environment, so
# that no PG… or RABBITMQ_… variable of the caller's reaches a server, and from a directory that
# every user may stand in.
launch_server() {
    local dir=$1 name=$2 fingerprint=$3 user=$4
    shift 4
    local become=()
    [[ $user == "$(id -un)" ]] || become=(setpriv "--reuid=$user" "--regid=$user" --init-groups)
    launch "$dir" "$name" "$fingerprint" "${become[@]}" \
        env -i --chdir=/ PATH=/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 \
        "POSTHORN_LOCAL_DIR=$dir" "$@"
}

# Where data goes that DIR cannot hold, see `data_directory`.
outside_directory() { echo "/var/lib/posthorn-$(short_hash "$1")"; }

# data_directory DIR NAME USER: prints the directory where server NAME keeps its files, and makes
# it. It is DIR/NAME, unless a directory above is closed to USER, as /root is: then that becomes a
# link to a directory under /var/lib.
data_directory() {
    local dir=$1 name=$2 user=$3
    if [[ ! -e $dir/$name ]]; then
        if as_user "$user" test -x "$dir"; then
            install -d -m 700 -o "$user" "$dir/$name"
        else
            install -d -m 755 "$(outside_directory "$dir")"
            install -d -m 700 -o "$user" "$(outside_directory "$dir")/$name"
            ln -sfn "$(outside_directory "$dir")/$name" "$dir/$name"
        fi
    fi
    readlink -f "$dir/$name"
}

# Forgets the data of servers that were stopped.
erase_servers() {
    rm -rf "$(outside_directory "$1")" "$1/postgres" "$1/rabbitmq"
}

# --- PostgreSQL ---

# start_postgres DIR PORT [SETTING=VALUE...]: with a database `posthorn` and a role that owns it.
start_postgres() {
    local dir=$1 port=$2
    shift 2
    local programs settings=(
        "listen_addresses=127.0.0.1" "port=$port"
        # A path to a socket may have 107 bytes, and a checkout's is longer at times.
        "unix_socket_directories="
        "max_connections=200" "wal_compression=off"
    )
    settings+=("$@") # the later one wins
    programs=$(postgres_programs) || die "PostgreSQL is not installed"
    local fingerprint
    fingerprint=$(printf '%s\n' "$programs" "${settings[@]}" | fingerprint)
    runs_unchanged "$dir" postgres "$fingerprint" && wait_until 5 postgres_answers "$port" && return

    stop_postgres "$dir"
    local user data
    user=$(server_user postgres)
    data=$(data_directory "$dir" postgres "$user")
    [[ -d $data/cluster ]] || make_cluster "$dir" "$programs" "$data" "$user"

    # Of a server that was killed, the last children may still be leaving: then it refuses once.
    local attempt
    for attempt in 1 2 3; do
        launch_server "$dir" postgres "$fingerprint" "$user" \
            "$programs/postgres" -D "$data/cluster" "${settings[@]/#/--}"
        wait_until "$SERVER_START_SECONDS" postgres_settled "$dir" "$port" || break
        is_running "$dir" postgres && break
        sleep "$attempt"
    done
    postgres_answers "$port" || die_of "$dir" postgres "did not start on port $port"
}

stop_postgres() {
    # INT is the fast way down: it does not wait for clients to leave.
    stop_process "$1" postgres 30 INT
}

postgres_password() { secret "$1/postgres-password" random_hex; }
postgres_url() { echo "postgres://posthorn:$(postgres_password "$1")@127.0.0.1:$2/posthorn"; }

postgres_answers() { "$(postgres_programs)/pg_isready" --quiet --host=127.0.0.1 --port="$1"; }
postgres_settled() { postgres_answers "$2" || is_stopped "$1" postgres; }

# A cluster is complete or not there: it gets its final name when all is in it.
make_cluster() {
    local dir=$1 programs=$2 data=$3 user=$4
    local new=$data/cluster.new
    as_user "$user" rm -rf "$new"
    as_user "$user" env --chdir=/ "$programs/initdb" --pgdata="$new" --username=postgres \
        --auth=reject --encoding=UTF8 --locale=C.UTF-8 >>"$dir/log/postgres.log" 2>&1 ||
        die_of "$dir" postgres "could not make a cluster"
    as_user "$user" tee "$new/pg_hba.conf" >/dev/null <<<'host all posthorn 127.0.0.1/32 scram-sha-256'
    # Our services are ordinary users of the database, as they would be elsewhere. (A single-user
    # server takes one statement a line, and needs no password.)
    as_user "$user" env --chdir=/ "$programs/postgres" --single -D "$new" postgres \
        >>"$dir/log/postgres.log" 2>&1 <<SQL || die_of "$dir" postgres "could not make a database"
CREATE ROLE posthorn LOGIN CREATEDB PASSWORD '$(postgres_password "$dir")'
CREATE DATABASE posthorn OWNER posthorn
SQL
    as_user "$user" mv "$new" "$data/cluster"
}

# --- RabbitMQ ---

# Schedulers that have nothing to do sleep at once, and other nodes are not let in.
ERLANG_ARGUMENTS="+sbwt none +sbwtdcpu none +sbwtdio none -kernel inet_dist_use_interface {127,0,0,1}"
readonly ERLANG_ARGUMENTS

# start_rabbitmq DIR AMQP_PORT MANAGEMENT_PORT METRICS_PORT DISTRIBUTION_PORT EPMD_PORT VHOST: a node
# of its own name, with the user `posthorn`, who may do everything.
start_rabbitmq() {
    local dir=$1 amqp=$2 management=$3 metrics=$4 distribution=$5 epmd=$6 vhost=$7
    [[ -x $RABBITMQ_SERVER ]] || die "RabbitMQ is not installed"
    local user
    user=$(server_user rabbitmq)
    start_epmd "$dir" "$epmd" "$user"
    local fingerprint
    fingerprint=$(printf '%s\n' "$@" | fingerprint)
    runs_unchanged "$dir" rabbitmq "$fingerprint" &&
        wait_until 10 rabbitmq_answers "$dir" "$amqp" "$management" && return

    stop_node "$dir"
    local home
    home=$(data_directory "$dir" rabbitmq "$user")
    configure_rabbitmq "$dir" "$home" "$user" "$amqp" "$management" "$metrics" "$vhost"
    local environment=(
        "HOME=$home" # for .erlang.cookie
        "ERL_EPMD_PORT=$epmd" ERL_EPMD_ADDRESS=127.0.0.1
        "RABBITMQ_NODENAME=$(rabbitmq_node "$dir")"
        "RABBITMQ_NODE_PORT=$amqp" "RABBITMQ_DIST_PORT=$distribution"
        "RABBITMQ_MNESIA_BASE=$home/data" "RABBITMQ_LOG_BASE=$home/log" RABBITMQ_LOGS=-
        "RABBITMQ_CONFIG_FILE=$home/etc/rabbitmq.conf"
        "RABBITMQ_ENABLED_PLUGINS_FILE=$home/etc/enabled_plugins"
        # Not there, so that nothing of the system's in /etc/rabbitmq is read instead.
        "RABBITMQ_CONF_ENV_FILE=$home/etc/rabbitmq-env.conf"
        "RABBITMQ_CONFIG_FILES=$home/etc/conf.d"
        "RABBITMQ_ADVANCED_CONFIG_FILE=$home/etc/advanced.config"
        # Replace the script by the node instead of watching it: then the pid is the node's.
        RUNNING_UNDER_SYSTEMD=true
        # No scheduler is tied to a processor that others use as well.
        RABBITMQ_SCHEDULER_BIND_TYPE=u
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS=$ERLANG_ARGUMENTS"
    )
    launch_server "$dir" rabbitmq "$fingerprint" "$user" "${environment[@]}" "$RABBITMQ_SERVER"
    wait_until "$SERVER_START_SECONDS" rabbitmq_settled "$dir" "$amqp" "$management" || true
    rabbitmq_answers "$dir" "$amqp" "$management" ||
        die_of "$dir" rabbitmq "did not start on port $amqp"
}

# Erlang nodes find each other through epmd, one for each machine. Ours has its own, which goes when
# the node goes.
start_epmd() {
    local dir=$1 port=$2 user=$3
    runs_unchanged "$dir" epmd "$port" && port_is_taken "$port" && return
    stop_process "$dir" epmd 5
    launch_server "$dir" epmd "$port" "$user" epmd -address 127.0.0.1 -port "$port"
    wait_until 10 port_is_taken "$port" || die_of "$dir" epmd "did not start on port $port"
}

stop_rabbitmq() {
    stop_node "$1"
    stop_process "$1" epmd 5
}
stop_node() { stop_process "$1" rabbitmq 60; }

# lose_rabbitmq_data DIR: what a node that does not run had stored, as if its disk were gone.
lose_rabbitmq_data() {
    local dir=$1 home
    is_stopped "$dir" rabbitmq || die "rabbitmq runs"
    home=$(data_directory "$dir" rabbitmq "$(server_user rabbitmq)")
    rm -rf "$home/data"
}

# call_rabbitmq DIR EPMD_PORT 'MODULE FUNCTION ARGUMENTS': calls a function in our node, in Erlang's words. `rabbitmqctl`
# can do the same, but starts a virtual machine for it, which takes seconds.
call_rabbitmq() {
    local dir=$1 epmd=$2 call=$3 user home
    user=$(server_user rabbitmq)
    home=$(data_directory "$dir" rabbitmq "$user")
    # The cookie is the one in HOME.
    as_user "$user" env -i --chdir=/ PATH=/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 \
        "HOME=$home" "ERL_EPMD_PORT=$epmd" erl_call -sname "$(rabbitmq_node "$dir")" -a "$call"
}

rabbitmq_node() { echo "posthorn-$(short_hash "$1")@localhost"; }
rabbitmq_password() { secret "$1/rabbitmq-password" random_hex; }
# rabbitmq_url DIR SCHEME PORT
rabbitmq_url() { echo "$2://posthorn:$(rabbitmq_password "$1")@127.0.0.1:$3"; }

# The management plugin is the last to come up, and says whether the virtual hosts are there. (The
# password goes through a file, since anyone may read a command line.)
rabbitmq_answers() {
    local dir=$1 amqp=$2 management=$3
    port_is_taken "$amqp" &&
        curl --silent --fail --noproxy '*' --max-time 5 --output /dev/null \
            --config <(printf 'user = "posthorn:%s"\n' "$(rabbitmq_password "$dir")") \
            "http://127.0.0.1:$management/api/health/checks/virtual-hosts"
}
rabbitmq_settled() { rabbitmq_answers "$@" || is_stopped "$1" rabbitmq; }

configure_rabbitmq() {
    local dir=$1 home=$2 user=$3 amqp=$4 management=$5 metrics=$6 vhost=$7 password
    password=$(rabbitmq_password "$dir")
    # Everything in it is its user's and nobody else's: the cookie and the password are in there.
    (
        umask 077
        mkdir -p "$home/etc" "$home/data" "$home/log"
        [[ -s $home/.erlang.cookie ]] || random_hex >"$home/.erlang.cookie"
        chmod 400 "$home/.erlang.cookie"
        echo '[rabbitmq_management, rabbitmq_prometheus].' >"$home/etc/enabled_plugins"
        cat >"$home/etc/rabbitmq.conf" <<CONF
listeners.tcp.1 = 127.0.0.1:$amqp
management.tcp.ip = 127.0.0.1
management.tcp.port = $management
prometheus.tcp.ip = 127.0.0.1
prometheus.tcp.port = $metrics

# Made on the first start, which spares us slow calls of rabbitmqctl.
default_vhost = $vhost
default_user = posthorn
default_pass = $password
default_user_tags.administrator = true

# A small machine, and not ours alone.
raft.wal_max_size_bytes = 67108864
vm_memory_high_watermark.relative = 0.4
disk_free_limit.absolute = 200MB
CONF
    )
    chown -R "$user:" "$home"
}
