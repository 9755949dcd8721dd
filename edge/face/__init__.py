"""Frame -> faces with probabilities and measurements.

`detector` finds faces, `mesh` places 468 `landmarks` on each, `tracking` keeps a number for each person,
`crop` cuts the input of the face model. `eyes`, `mouth`, `yawning` and `head_pose` measure one face;
`measurements` collects them. `history` holds the embeddings of the last 1.5 s, and `combination` combines
the predictions of image and video model.

From outside: `edge.pipeline.FacePipeline`, which runs all of it; training uses `crop`, `detector`, `eyes`.
"""
