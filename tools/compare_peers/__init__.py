"""The same network, weights and input in other people's engines and in ours, timed in turns.

    python -m tools.compare_peers --network fastvithd --image-size 512 --batch-size 1 --repeats 7
    python -m tools.compare_peers --work vlm --size fastvlm_0.5b --image-size 1024 --repeats 3

Every peer lives in a process of its own that loads the weights once and computes when it is told
to, so that A B C A B C is real and only one computes at a time. What a peer computes is compared
with the reference before its time counts. Peers that are not installed are listed as such.

    python -m tools.compare_peers --device cuda --image-size 1024 --batch-size 8

measures on a graphics card: pictures and weights of a network lie on it, every time ends when it
has nothing left to do, and ratios are to the best known peer there, in bfloat16.
"""
