"""The comparison on an accelerator, in bfloat16: one table for each shape, printed as it is done.

    python -m tools.compare_peers.gpu --out FOLDER
    python -m tools.compare_peers.gpu --work encoder --cells 512x1,1024x8 --rounds 9

Every peer of every shape has a process of its own. All load and compile side by side; afterwards
one process computes at a time, A B C A B C. What a peer computes in bfloat16 is compared with timm
or transformers in float32 before its time counts. A peer that fails is a row with its error.
"""
