"""Frame -> faces with probabilities and measurements.

`detector` finds faces and places 468 mesh points, `tracking` keeps a number for each, `crop` cuts what the
networks read. `eyes`, `mouth`, `yawning` and `head_pose` measure one face; `measurements` collects them.
`history` holds the embeddings of the last 1.5 s, and `combination` combines image and video model.

From outside: `edge.pipeline.FacePipeline`, which runs all of it; training uses `crop`, `detector`, `eyes`.
"""
