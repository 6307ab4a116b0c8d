#!/usr/bin/env bash
# A real Slurm on this single host, for tests: slurmctld, two slurmd with one simulated MIG slice each, munge, accounting.
#
#   scripts/slurm_testbed.sh up       install missing packages (Debian, root), start, wait until both nodes are idle
#   scripts/slurm_testbed.sh down     stop everything and remove it
#   scripts/slurm_testbed.sh env      print the environment for clients: export SLURM_CONF=...
#
# All files are in $SLURM_TESTBED (default: /tmp/domainbed-sage-slurm); nothing is written to /etc.
# Partitions: `low` (default; its jobs are preempted and requeued) and `high` (preempts `low`).
set -euo pipefail

ROOT=${SLURM_TESTBED:-/tmp/domainbed-sage-slurm}
PORT=${SLURM_TESTBED_PORT:-17817}
NODES=(bed0 bed1)
SLICE=a100_3g.20gb
HOST=$(hostname -s)
export SLURM_CONF=$ROOT/slurm.conf

say() { echo "slurm_testbed: $*" >&2; }

fail() {
  say "$*"
  tail -n 15 "$ROOT"/log/*.log >&2 2>/dev/null || true
  exit 1
}

wait_until() { # seconds, what, command...
  local end=$((SECONDS + $1)) what=$2
  shift 2
  until "$@" >/dev/null 2>&1; do
    [ $SECONDS -lt $end ] || fail "timed out waiting for $what"
    sleep 0.2
  done
}

install() {
  command -v slurmctld >/dev/null && command -v slurmdbd >/dev/null && command -v mariadbd >/dev/null && return
  say "installing slurm, munge and mariadb"
  export DEBIAN_FRONTEND=noninteractive
  local packages=(slurm-wlm munge slurmdbd mariadb-server)
  apt-get install -y -qq --no-install-recommends "${packages[@]}" >/dev/null 2>&1 ||
    { apt-get update -qq && apt-get install -y -qq --no-install-recommends "${packages[@]}" >/dev/null; } ||
    fail "apt-get could not install ${packages[*]}"
}

configure() {
  mkdir -p "$ROOT"/{log,run,state,spool,secret}
  chmod 755 "$ROOT" "$ROOT/run"
  chmod 700 "$ROOT/secret"
  head -c 1024 /dev/urandom >"$ROOT/secret/munge.key"
  chmod 400 "$ROOT/secret/munge.key"
  # cred_expire is the time from a requeue to the restart; a value below KillWait or 5 s drains the node.
  cat >"$SLURM_CONF" <<CONF
ClusterName=bed
SlurmctldHost=$HOST(127.0.0.1)
SlurmctldPort=$PORT
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket=$ROOT/run/munge.socket,cred_expire=9
StateSaveLocation=$ROOT/state
SlurmdSpoolDir=$ROOT/spool/%n
SlurmctldPidFile=$ROOT/run/slurmctld.pid
SlurmdPidFile=$ROOT/run/slurmd-%n.pid
SlurmctldLogFile=$ROOT/log/slurmctld.log
SlurmdLogFile=$ROOT/log/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=2
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU=256
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=1,sched_interval=1,batch_sched_delay=0
PriorityType=priority/basic
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
SlurmdParameters=config_overrides
JobRequeue=1
ReturnToService=2
SlurmdTimeout=10
SlurmctldTimeout=30
InactiveLimit=0
MinJobAge=3600
EnforcePartLimits=ALL
KillWait=3
UnkillableStepTimeout=60
MaxArraySize=101
MailProg=/bin/true
FirstJobId=$(($(date +%s) % 60000000 + 1000))
GresTypes=gpu
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort=$((PORT + 1))
AccountingStoragePass=$ROOT/run/munge.socket
AccountingStorageTRES=gres/gpu
CONF
  for i in "${!NODES[@]}"; do
    echo "NodeName=${NODES[i]} NodeHostname=$HOST NodeAddr=127.0.0.1 Port=$((PORT + 10 + i)) CPUs=2 Boards=1" \
      "SocketsPerBoard=1 CoresPerSocket=2 ThreadsPerCore=1 RealMemory=6000 Gres=gpu:$SLICE:1 State=UNKNOWN"
  done >>"$SLURM_CONF"
  cat >>"$SLURM_CONF" <<CONF
PartitionName=low Nodes=ALL Default=YES DefaultTime=10 MaxTime=60 State=UP PriorityTier=10 PreemptMode=REQUEUE GraceTime=20
PartitionName=high Nodes=ALL DefaultTime=10 MaxTime=60 State=UP PriorityTier=100 PreemptMode=OFF
CONF
  # Every unit of a gres needs an existing device file; nothing opens it here.
  echo "NodeName=bed[0-1] Name=gpu Type=$SLICE File=/dev/null" >"$ROOT/gres.conf"
  echo "CgroupAutomount=no" >"$ROOT/cgroup.conf"
  cat >"$ROOT/slurmdbd.conf" <<CONF
AuthType=auth/munge
AuthInfo=socket=$ROOT/run/munge.socket
DbdHost=$HOST
DbdAddr=127.0.0.1
DbdPort=$((PORT + 1))
SlurmUser=root
LogFile=$ROOT/log/slurmdbd.log
PidFile=$ROOT/run/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort=$((PORT + 2))
StorageUser=slurm
StoragePass=bed
StorageLoc=slurm_acct
CONF
  chmod 600 "$ROOT/slurmdbd.conf"
}

sql() { mariadb --no-defaults -uroot -S "$ROOT/run/mysqld.sock" "$@"; }

both_idle() { [ "$(sinfo -h -N -p low -t idle | wc -l)" = ${#NODES[@]} ]; }

start() {
  munged --key-file="$ROOT/secret/munge.key" --socket="$ROOT/run/munge.socket" --pid-file="$ROOT/run/munged.pid" \
    --log-file="$ROOT/secret/munged.log" --seed-file="$ROOT/secret/munged.seed" >"$ROOT/log/munged-start.log" 2>&1
  wait_until 10 "munge" munge -n -S "$ROOT/run/munge.socket"

  mariadb-install-db --no-defaults --user=root --datadir="$ROOT/mysql" --skip-test-db \
    --auth-root-authentication-method=socket --auth-root-socket-user=root >"$ROOT/log/mysql-install.log" 2>&1
  setsid mariadbd --no-defaults --user=root --datadir="$ROOT/mysql" --socket="$ROOT/run/mysqld.sock" \
    --pid-file="$ROOT/run/mysqld.pid" --bind-address=127.0.0.1 --port=$((PORT + 2)) \
    --innodb-buffer-pool-size=64M --innodb-lock-wait-timeout=900 --performance-schema=0 \
    </dev/null >"$ROOT/log/mysqld.log" 2>&1 &
  wait_until 30 "mariadb" sql -e "select 1"
  sql -e "create database slurm_acct; create user 'slurm'@'127.0.0.1' identified by 'bed';
          create user 'slurm'@'localhost' identified by 'bed';
          grant all on slurm_acct.* to 'slurm'@'127.0.0.1'; grant all on slurm_acct.* to 'slurm'@'localhost'"
  slurmdbd </dev/null >"$ROOT/log/slurmdbd-start.log" 2>&1
  wait_until 30 "slurmdbd" sacctmgr -n list cluster

  slurmctld </dev/null >"$ROOT/log/slurmctld-start.log" 2>&1
  wait_until 30 "slurmctld" sh -c "scontrol ping | grep -q 'is UP'"
  for node in "${NODES[@]}"; do start_node "$node"; done
  wait_until 40 "idle nodes" both_idle
}

start_node() { # also used by tests that kill a slurmd
  mkdir -p "$ROOT/spool/$1"
  slurmd -N "$1" </dev/null >"$ROOT/log/slurmd-$1-start.log" 2>&1
}

down() {
  [ -e "$ROOT" ] || return 0
  grep -qs "^ClusterName=bed" "$SLURM_CONF" || fail "$ROOT is not a test bed; leaving it unchanged"
  if timeout 5 scontrol ping >/dev/null 2>&1; then
    scancel --full --user=root 2>/dev/null || true
    for _ in $(seq 40); do [ -z "$(squeue -h)" ] && break || sleep 0.5; done
  fi
  local name
  for name in slurmctld slurmd-bed0 slurmd-bed1 slurmdbd mysqld munged; do
    [ -f "$ROOT/run/$name.pid" ] && kill "$(cat "$ROOT/run/$name.pid")" 2>/dev/null || true
  done
  sleep 1
  for name in slurmctld slurmd-bed0 slurmd-bed1 slurmdbd mysqld; do
    [ -f "$ROOT/run/$name.pid" ] && kill -9 "$(cat "$ROOT/run/$name.pid")" 2>/dev/null || true
  done
  rm -rf "$ROOT"
}

case "${1:-}" in
up)
  [ "$(id -u)" = 0 ] || fail "needs root"
  if [ -f "$ROOT/run/slurmctld.pid" ] && timeout 5 scontrol ping 2>/dev/null | grep -q "is UP"; then
    say "already up: export SLURM_CONF=$SLURM_CONF"
    exit 0
  fi
  install
  down
  configure
  start
  say "up: export SLURM_CONF=$SLURM_CONF"
  ;;
down) down ;;
env) echo "export SLURM_CONF=$SLURM_CONF" ;;
node) start_node "$2" ;;
*)
  sed -n '2,10s/^# \{0,1\}//p' "$0"
  exit 2
  ;;
esac
