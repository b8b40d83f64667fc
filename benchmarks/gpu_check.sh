#!/usr/bin/env bash
# Everything that needs a CUDA device, in one go and in under nine minutes, without a network. Its parts in order of worth:
#
#   kernels    compiles Warp's kernels for this GPU, on all cores; without it every other part would, one by one
#   self_test  a few envs, an image and a recorded update beside the CPU's
#   parity     the tests marked gpu
#   sim        environment steps per second       replay  images of recorded states per second
#   learner    updates per second                 run     the main job, small: collected, trained, filmed, reported,
#                                                         on Warp if it has passed its self-test, else on the CPU's cores
#
#   benchmarks/gpu_check.sh OUT                  logs, JSON results, the run's curve, video and report go to OUT
#   PARTS="kernels sim" benchmarks/gpu_check.sh OUT
#   DEVICE=cpu benchmarks/gpu_check.sh OUT       the same on Warp's CPU device, with tiny sizes
#
# Each part has a limit of its own and writes OUT/NAME.json as it ends, so that a check cut short leaves what it has; one that
# fails doesn't stop the others. PYTHON names the interpreter (python by default); it must be able to import caliper.
# Compiled kernels are kept where WARP_CACHE_PATH says: brought along from elsewhere, they spare the first part.
set -uo pipefail
OUT=$(mkdir -p "${1:?name a folder for the results}" && cd "$1" && pwd)
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python} DEVICE=${DEVICE:-cuda}
PARTS=${PARTS:-kernels self_test parity sim replay learner run}
failed=()

part() { # NAME SECONDS COMMAND...: its output goes to OUT/NAME.log, its end to the screen, what came of it to OUT/NAME.json
  local name=$1 limit=$(($2 * patience)) start=$SECONDS status=0
  shift 2
  case " $PARTS " in *" $name "*) ;; *) return ;; esac
  timeout --kill-after=5 "$limit" "$@" >"$OUT/$name.log" 2>&1 || status=$? # a program that waits for a GPU may not heed TERM
  cp "$OUT"/run/{report.html,metrics.csv} "$OUT"/run/plots/learning_curve.png "$OUT"/run/videos/rollouts.mp4 "$OUT/" 2>/dev/null
  "$PYTHON" - "$OUT/$name" "$status" $((SECONDS - start)) "$limit" <<'END'
import json, os, sys
path, status, seconds, limit = sys.argv[1], *map(int, sys.argv[2:])
lines = open(path + ".log", errors="replace").read().splitlines()
results = [json.loads(line) for line in lines if line.startswith('{"name"')]
part = {"part": os.path.basename(path), "status": status, "cut short": status in (124, 137), "seconds": seconds, "limit": limit}
with open(path + ".json.new", "w") as file:
    json.dump(part | {"result": results[-1] if results else None, "last lines": lines[-5:]}, file, indent=1)
os.replace(path + ".json.new", path + ".json")
END
  echo "== $name: status $status, $((SECONDS - start)) of $limit s"
  tail -n 3 "$OUT/$name.log" | cut -c1-600
  [ "$status" = 0 ] || failed+=("$name")
}

if [ "$DEVICE" = cuda ]; then
  patience=1
  # Only the files with such tests: the others may ask for packages that are not there. And warnings do not
  # fail a test here: this Python and these packages are the machine's, not those of constraints.txt.
  mapfile -t files < <(grep -rl --include='test_*.py' 'mark\.gpu' tests)
  bench=(--device cuda) tests=(-m gpu -W default "${files[@]}")
  run=(data.episodes=256 offline.bc_updates=500 offline.updates=1500 offline.eval_every=1500
    agent.actor_start=500 online.env_steps=12800 online.utd=0.1 online.eval_every=12800 evaluation.final_episodes=50)
else
  patience=${PATIENCE:-8} # the limits are a GPU machine's, whose cores are many and idle
  bench=(--device cpu --quick)
  tests=(-m "not gpu and not slow" -W default tests/envs/test_graphs.py tests/caliper/training/test_self_test.py)
  run=(sim=warp sim.device=cpu device=cpu learner=eager encoder=conv_tiny task.size=16 "task.cameras=[agentview]" task.horizon=3 data.episodes=2 data.num_envs=2
    batch_size=4 offline.bc_updates=2 offline.updates=2 agent.actor_start=1 online.num_envs=2 online.env_steps=8
    online.warmup_steps=2 online.capacity=100 evaluation.num_envs=2 evaluation.episodes=2 evaluation.final_episodes=2
    video.episodes=1 video.size=64)
fi
part kernels 50 "$PYTHON" benchmarks/gpu_kernels.py "${bench[@]}"
part self_test 40 "$PYTHON" benchmarks/gpu_self_test.py --device "$DEVICE"
part parity 110 "$PYTHON" -m pytest -v -p no:cacheprovider -o faulthandler_timeout=50 "${tests[@]}"
part sim 50 "$PYTHON" benchmarks/sim_gpu.py "${bench[@]}"
part replay 55 "$PYTHON" benchmarks/replay_gpu.py "${bench[@]}"
part learner 100 "$PYTHON" benchmarks/learner_gpu.py "${bench[@]}"
# Recorded updates, as the preset says, unless just now there was not one.
[[ " ${failed[*]:-} " == *" learner "* ]] && grep -q '"result": null' "$OUT/learner.json" && run+=(learner=eager)
part run 130 "$PYTHON" -m caliper train preset=pick_place_can_gpu run_dir="$OUT/run" log.wandb=disabled "${run[@]}"
echo "== all in $SECONDS s; failed: ${failed[*]:-none}; results in $OUT"
[ ${#failed[@]} = 0 ]
