#!/bin/sh
# A program that keeps the contract of `cutover load` and `cutover check` with a file of lines: what the tests of the
# torture are made with. It syncs each line before it acknowledges it, at `synced`. With LIES=power it does not, with
# LIES=kill it writes lines after it has acknowledged them, ten at a time, with LIES=end it ends by itself.
set -eu
command=$1
shift
data= acks= seed=0 durability=synced from=rocksdb after=kill
while [ $# -gt 0 ]; do
    case $1 in
        --data) data=$2; shift ;;
        --acks) acks=$2; shift ;;
        --seed) seed=$2; shift ;;
        --durability) durability=$2; shift ;;
        --from) from=$2; shift ;;
        --after) after=$2; shift ;;
        --to) shift ;;
    esac
    shift
done
case $command in
    load)
        mkdir -p "$data"
        : >>"$data/lines"
        sync "$data/lines" "$data" "$data/.."
        # What a cut has left of a line ends here.
        echo >>"$data/lines"
        echo "{\"ack\":\"opened\",\"durability\":\"$durability\"}"
        echo "{\"ack\":\"phase\",\"phase\":\"stable\",\"home\":\"$from\"}"
        n=0 later=
        while [ $n -lt 1 ] || [ "${LIES-}" != end ]; do
            if [ "${LIES-}" = kill ]; then
                later="$later$seed-$n "
                if [ $((n % 10)) -eq 9 ]; then printf '%s\n' $later >>"$data/lines"; later=; fi
            else
                echo "$seed-$n" >>"$data/lines"
                if [ "$durability" = synced ] && [ "${LIES-}" != power ]; then sync "$data/lines"; fi
            fi
            echo "{\"ack\":\"launch\",\"line\":\"$seed-$n\"}"
            n=$((n + 1))
        done
        ;;
    check)
        lost=$(sed -n 's/.*"line":"\(.*\)".*/\1/p' "$acks" | awk -v data="$data/lines" '
            BEGIN { while ((getline line <data) > 0) there[line] = 1 }
            !($0 in there) { lost++ }
            END { print lost + 0 }')
        if [ "$lost" -gt 0 ] && { [ "$after" = kill ] || grep -q '"durability":"synced"' "$acks"; }; then
            echo "{\"ok\":false,\"lost\":$lost,\"broken\":[\"$lost lines lost\"]}"
            exit 1
        fi
        echo "{\"ok\":true,\"lost\":$lost,\"broken\":[]}"
        ;;
esac
