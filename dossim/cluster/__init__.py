"""Prediction of captures on many machines: ``dossim predict --scheduler`` (docs/scale.md).

A capture is split into shards at any byte. Where the first record of a shard begins is guessed (``guess.py``) and then
proved: where the records of the shard before it end (``chain.py``). Each shard is predicted on its own (``shard.py``);
packets whose end depends on others, in any shard, are gathered by the addresses they have and decided in order
(``dependent.py``). ``run.py`` is the whole of it, on anything that runs functions elsewhere; ``dask.py`` is what does,
and ``storage.py`` reads the captures. Nothing else here touches a network or a file.
"""
